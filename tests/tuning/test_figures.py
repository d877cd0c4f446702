"""Figures of tuning: their contents, and that the same input gives the same pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from project import PARAMS

from roofseg.drawing import colour
from roofseg.recipe.parsing import parse_params
from roofseg.tuning import figures as figures_module
from roofseg.tuning.figures import against, best_so_far
from roofseg.tuning.table import HEAD, SCORES

HEADING = "Tuning, tiny, 64 px"
INKS = {"small": colour(0), "smaller": colour(3)}
LABELS = {"small": "small", "smaller": "smaller $ & <b>"}


def table(**changes: object) -> pd.DataFrame:
    rows = [
        ("small", 1, "done", 0.0001, "heavy", 0.5),
        ("small", 2, "done", 0.003, "light", 0.7),
        ("small", 3, "done", 0.001, "light", 0.6),
        ("small", 4, "done", 0.001, "extreme", 0.65),
        ("smaller", 1, "done", 0.001, "light", 0.4),
        ("smaller", 2, "queued", 0.003, "heavy", None),
    ]
    columns = ["attempt", "number", "state", "lr", "augmentation", "val_iou"]
    runs = pd.DataFrame(rows, columns=columns)
    return runs.assign(label=runs.attempt.map(LABELS), ink=runs.attempt.map(INKS), **changes)


def pixels_of(image: np.ndarray, index: int) -> int:
    rgb = bytes.fromhex(colour(index)[1:])
    return int((image == list(rgb)).all(axis=2).sum())


@pytest.mark.parametrize("key", ["lr", "augmentation"])
def test_runs_are_drawn_in_their_attempts_colour(key: str) -> None:
    image = against(table(), key, HEADING)
    assert image.dtype == np.uint8
    assert image.shape[1] == 1600
    assert pixels_of(image, 0) > pixels_of(image, 3) > 100
    assert pixels_of(image, 1) == 0


def test_every_scored_run_is_a_dot_at_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(figures_module, "rendered", figures.append)
    against(table(), "lr", HEADING)
    dots = [panel.collections[0].get_offsets().tolist() for panel in figures[0].axes]
    assert dots == [[[0, 0.5], [2, 0.7], [1, 0.6], [1, 0.65]], [[0, 0.4]]]
    line = figures[0].axes[0].get_lines()[0]
    assert list(line.get_ydata()) == pytest.approx([0.5, 0.625, 0.7])


def test_presets_are_sorted_by_strength_and_numbers_by_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = []
    monkeypatch.setattr(figures_module, "rendered", figures.append)
    against(table(), "augmentation", HEADING)
    ticks = [label.get_text() for label in figures[0].axes[0].get_xticklabels()]
    assert ticks == ["light", "heavy", "extreme"]
    against(table(), "lr", HEADING)
    assert [label.get_text() for label in figures[1].axes[0].get_xticklabels()] == [
        *("0.0001", "0.001", "0.003")
    ]


def test_a_key_may_hold_numbers_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """freeze_epochs and ema_decay do. When read from a CSV file, their numbers are text too."""
    figures = []
    monkeypatch.setattr(figures_module, "rendered", figures.append)
    for values in ([20, "all", 3, "null", 0, 3], ["20", "all", "3", "null", "0", "3"]):
        against(table(freeze_epochs=values), "freeze_epochs", HEADING)
        ticks = [label.get_text() for label in figures[-1].axes[0].get_xticklabels()]
        assert ticks == ["3", "20", "all", "null"]


def test_the_best_so_far_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(figures_module, "rendered", figures.append)
    best_so_far(table(), HEADING)
    lines = {line.get_label(): line.get_ydata() for line in figures[0].axes[0].get_lines()}
    assert list(lines["small"]) == [0.5, 0.7, 0.7, 0.7]
    assert list(lines["smaller $ & <b>"]) == [0.4]


def test_a_failed_run_counts_as_used(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(figures_module, "rendered", figures.append)
    first_failed = table()
    first_failed.loc[0, ["state", "val_iou"]] = ["failed", None]
    best_so_far(first_failed, HEADING)
    lines = {line.get_label(): line for line in figures[0].axes[0].get_lines()}
    assert list(lines["small"].get_xdata()) == [2, 3, 4]


def test_the_same_runs_give_the_same_pixels() -> None:
    for draw in (
        lambda t: against(t, "lr", HEADING),
        lambda t: best_so_far(t, HEADING),
    ):
        assert np.array_equal(draw(table()), draw(table()))


def test_each_key_has_a_figure_whose_title_names_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures_module, "rendered", drawn.append)
    params = parse_params(PARAMS.replace("dataset: tiny", "dataset: sample"))
    of_runs = pd.DataFrame(table(), columns=[*HEAD, "lr", "augmentation", *SCORES])
    assert list(figures_module.figures(of_runs, params)) == ["lr", "augmentation", "best"]
    for figure in drawn:
        assert figure.get_suptitle().startswith("Tuning, sample (synthetic), 64 px: ")
