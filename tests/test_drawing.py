from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from graph import ROOT

from roofseg import drawing

TEMPLATES = ROOT / ".dvc/plots"

SIDE = 64


def square(top: int, left: int, side: int, size: int = SIDE) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def grey(size: int = SIDE) -> np.ndarray:
    return np.full((size, size, 3), 100, np.uint8)


def painted(picture: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(rgb, np.uint8)).all(axis=-1)


def test_overlay_draws_truth_outside_and_prediction_inside_of_the_same_edge() -> None:
    mask = square(20, 20, 20)
    before = grey()
    drawn = drawing.overlay(before, mask, mask)
    assert drawn.shape == (SIDE, SIDE, 3)
    assert drawn.dtype == np.uint8
    green, red = painted(drawn, drawing.TRUTH), painted(drawn, drawing.PREDICTION)
    assert green.any()
    assert not (green & (mask > 0)).any()
    assert red.sum() == 20 * 4 - 4
    assert not (red & (mask == 0)).any()
    assert not painted(drawn, drawing.BOTH).any()
    assert (drawn[30, 30] == 100).all(), "the roof itself stays visible"
    assert (before == 100).all(), "the caller's image is not drawn on"


def test_overlay_of_crossing_outlines_and_of_nothing() -> None:
    drawn = drawing.overlay(grey(), square(20, 20, 20), square(10, 10, 20))
    assert painted(drawn, drawing.BOTH).any()
    empty = np.zeros((SIDE, SIDE), np.uint8)
    np.testing.assert_array_equal(drawing.overlay(grey(), empty, empty), grey())


def test_a_footprint_cut_by_the_border_has_no_line_there() -> None:
    everything = np.ones((SIDE, SIDE), np.uint8)
    np.testing.assert_array_equal(drawing.overlay(grey(), everything, everything), grey())


@pytest.mark.parametrize(("size", "width"), [(224, 1), (512, 2), (1024, 4)])
def test_lines_grow_with_the_picture(size: int, width: int) -> None:
    quarter = size // 4
    mask = square(quarter, quarter, quarter, size)
    drawn = drawing.overlay(grey(size), np.zeros_like(mask), mask)
    column = painted(drawn, drawing.PREDICTION)[:, quarter + quarter // 2]
    assert column.sum() == 2 * width, "an upper and a lower edge"


def test_panel_shows_image_truth_and_the_three_kinds_of_outcome() -> None:
    truth, prediction = square(20, 20, 20), square(30, 20, 20)
    image, footprints, judged = drawing.split_panel(drawing.panel(grey(), truth, prediction))
    np.testing.assert_array_equal(image, grey())
    np.testing.assert_array_equal(
        (footprints != 100).any(axis=-1) & (truth > 0), truth > 0, "the whole roof is tinted"
    )
    for pixel, strongest in {(25, 30): 2, (35, 30): 1, (45, 30): 0}.items():
        others = np.delete(judged[pixel], strongest)
        assert (judged[pixel][strongest] > others).all(), "missed blue, found green, false red"
    assert (judged[5, 5] == 100).all()


def test_a_strip_that_is_no_panel_is_refused() -> None:
    with pytest.raises(ValueError, match="64 x 64"):
        drawing.split_panel(grey())


@pytest.mark.parametrize(("tiles", "attempts"), [(1, 1), (2, 5), (7, 3)])
def test_comparison_grid_has_a_cell_for_every_tile_and_column(tiles: int, attempts: int) -> None:
    names = [f"tile{index}" for index in range(tiles)]
    columns = [
        drawing.Column("image", [grey() for _ in names]),
        *(
            drawing.Column(f"a_rather_long_name_{k}\n0.700", [grey(512)] * tiles, names)
            for k in range(attempts)
        ),
    ]
    grid = drawing.comparison_grid(names, columns, "A title")
    cell = drawing.CELL
    assert grid.shape == (
        drawing.TOP + tiles * (cell + drawing.CAPTION + drawing.GAP) + drawing.BOTTOM,
        drawing.LEFT + (1 + attempts) * (cell + drawing.GAP),
        3,
    )
    assert painted(grid, (100, 100, 100)).sum() >= tiles * (1 + attempts) * cell**2
    np.testing.assert_array_equal(grid, drawing.comparison_grid(names, columns, "A title"))


@pytest.mark.parametrize("count", [1, 2, 6])
def test_contact_sheet_shows_every_picture(count: int) -> None:
    sheet = drawing.contact_sheet([(grey(), f"tile {k}") for k in range(count)], "epoch 5")
    assert painted(sheet, (100, 100, 100)).sum() >= count * drawing.CELL**2


def curves(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"attempt": attempt, "epoch": epoch, "val_iou": value}
            for attempt, curve in values.items()
            for epoch, value in enumerate(curve, 1)
        ]
    )


def rgb(name: str) -> tuple[int, int, int]:
    return (int(name[1:3], 16), int(name[3:5], 16), int(name[5:7], 16))


def test_convergence_has_one_colour_per_attempt_in_their_order() -> None:
    drawn = drawing.convergence(curves(b=[0.1, 0.5, 0.4], a=[0.2, 0.3]))
    assert drawn.shape == (768, 1600, 3)
    first, second = painted(drawn, rgb(drawing.colour(0))), painted(drawn, rgb(drawing.colour(1)))
    assert first.any()
    assert second.any()
    # b, the first, reaches higher than a.
    assert np.argwhere(first[:, :900])[:, 0].min() < np.argwhere(second[:, :900])[:, 0].min()
    assert not painted(drawn, rgb(drawing.colour(2))).any()
    again = drawing.convergence(curves(b=[0.1, 0.5, 0.4], a=[0.2, 0.3]))
    np.testing.assert_array_equal(drawn, again)


def test_convergence_survives_a_run_without_a_finite_value() -> None:
    drawn = drawing.convergence(curves(broken=[float("nan")] * 2, whole=[0.5, float("nan")]))
    assert painted(drawn, rgb(drawing.colour(1))).any()


def test_colours_differ_between_attempts_and_repeat_only_after_all_were_used() -> None:
    used = [drawing.colour(index) for index in range(len(drawing.COLOURS))]
    assert len(set(used)) == len(used) >= 5
    assert drawing.colour(len(used)) == used[0]


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.json")), ids=lambda path: path.stem)
def test_plots_of_dvc_give_the_attempts_the_same_colours(template: Path) -> None:
    found = list(colour_encodings(json.loads(template.read_text())))
    assert found
    for encoding in found:
        assert encoding["field"] == "attempt"
        assert encoding["scale"]["range"] == drawing.COLOURS
        # In the order of the data, which is that of params.yaml.
        assert encoding["sort"] is None


def colour_encodings(part: Any) -> Iterator[dict[str, Any]]:
    """Every encoding of a colour in a template, however deep."""
    if isinstance(part, dict):
        if "color" in part.get("encoding", {}):
            yield part["encoding"]["color"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from colour_encodings(each)
