from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_entries import entry

from roofseg import drawing
from roofseg.core.images import Image
from roofseg.report.attempts import Entry
from roofseg.report.comparisons import compare_with_leader, ranked
from roofseg.report.cost_table import cost_table
from roofseg.report.leaderboard import score_table
from roofseg.report.leaderboard_text import tile_counts
from roofseg.report.score_figures import against_cost, with_intervals

BEST = [0.80, 0.70, 0.75, 0.65, 0.85, 0.78]
CLOSE = [0.82, 0.66, 0.76, 0.60, 0.86, 0.77]
WORSE = [0.60, 0.55, 0.62, 0.40, 0.70, 0.59]


def drawn(entries: list[Entry]) -> Image:
    order = ranked(entries)
    table = score_table(order, compare_with_leader(order))
    return with_intervals(table, colours(entries), 0.3, tile_counts(entries))


def colours(entries: list[Entry]) -> dict[str, str]:
    return {each.label: drawing.colour(index) for index, each in enumerate(entries)}


def painted(picture: Image, index: int) -> np.ndarray:
    """Where the attempt at ``index`` in params.yaml is drawn."""
    name = drawing.colour(index)
    rgb = [int(name[start : start + 2], 16) for start in (1, 3, 5)]
    return (picture == np.array(rgb, np.uint8)).all(axis=-1)


def rows_of(picture: Image, index: int) -> float:
    return float(np.argwhere(painted(picture, index))[:, 0].mean())


def test_the_best_is_on_top_in_the_colour_that_all_plots_give_it() -> None:
    picture = drawn([entry("worse", {"val": WORSE}), entry("best", {"val": BEST})])
    assert rows_of(picture, 1) < rows_of(picture, 0)
    assert not painted(picture, 2).any()
    np.testing.assert_array_equal(
        picture, drawn([entry("worse", {"val": WORSE}), entry("best", {"val": BEST})])
    )


def test_a_tie_is_a_ring() -> None:
    picture = drawn(
        [entry("best", {"val": BEST}), entry("close", {"val": CLOSE}), entry("w", {"val": WORSE})]
    )

    assert [is_hollow(picture, index) for index in range(3)] == [False, True, False]


def is_hollow(picture: Image, index: int) -> bool:
    """Whether an attempt's point is white inside."""
    where = painted(picture, index)
    heights = np.array(
        [np.ptp(np.flatnonzero(column)) if column.any() else 0 for column in where.T]
    )
    assert heights.max() > 8  # the interval is a thin line, the point is not
    centre = int(np.median(np.flatnonzero(heights >= heights.max() - 1)))
    return bool((picture[round(rows_of(picture, index)), centre] > 250).all())


def test_test_has_a_panel_once_somebody_opened_it() -> None:
    sealed, opened = entry("sealed", {"val": WORSE}), entry("opened", {"val": BEST, "test": BEST})
    alone, both = drawn([sealed]), drawn([sealed, opened])
    assert both.shape[1] == 1600 > alone.shape[1]
    # The one whose test is sealed is drawn in the left panel alone.
    assert np.argwhere(painted(both, 0))[:, 1].max() < 800
    assert np.argwhere(painted(both, 1))[:, 1].max() > 800


def test_a_single_tile_has_a_point_and_no_interval() -> None:
    picture = drawn([entry("a", {"val": [0.5]}), entry("b", {"val": [0.4]})])
    widths = [np.ptp(np.argwhere(painted(picture, index))[:, 1]) for index in (0, 1)]
    assert all(5 < width < 30 for width in widths)


def points(picture: Image, index: int) -> list[tuple[float, float]]:
    """Column and row of each point of an attempt, from left to right."""
    where = painted(picture, index)
    columns = np.flatnonzero(where.any(axis=0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 5) + 1)
    return [
        (float(group.mean()), float(np.argwhere(where[:, group])[:, 0].mean())) for group in groups
    ]


def costs_of(entries: list[Entry]) -> pd.DataFrame:
    order = ranked(entries)
    return cost_table(order, score_table(order, compare_with_leader(order)))


def test_costs_are_to_the_right_and_scores_up() -> None:
    entries = [
        entry("cheap", {"val": WORSE}, minutes=2, multiply_adds=10**10),
        entry("dear", {"val": BEST}, minutes=60, multiply_adds=4 * 10**11),
    ]
    picture = against_cost(costs_of(entries), colours(entries))
    assert picture.shape == (672, 1600, 3)
    # Minutes, multiply-adds, legend.
    cheap, dear = (points(picture, index) for index in (0, 1))
    assert len(cheap) == len(dear) == 3
    for (cheap_x, cheap_y), (dear_x, dear_y) in zip(cheap[:2], dear[:2], strict=True):
        assert cheap_x < dear_x
        assert cheap_y > dear_y
    np.testing.assert_array_equal(picture, against_cost(costs_of(entries), colours(entries)))


@pytest.mark.parametrize("minutes", [0.0, 0.02])
def test_costs_that_are_alike_or_nothing_are_drawn_too(minutes: float) -> None:
    entries = [entry(name, {"val": BEST}, minutes=minutes) for name in ("one", "other")]
    picture = against_cost(costs_of(entries), colours(entries))
    assert painted(picture, 1).any()
