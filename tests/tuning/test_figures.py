"""Figures of tuning: what is drawn, and that the same input gives the same pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from project import PARAMS

from roofseg.drawing import colour
from roofseg.recipe.params import parse_params
from roofseg.tuning import figures
from roofseg.tuning.figures import against, best_so_far
from roofseg.tuning.table import HEAD, SCORES

TITLE = "tiny, 64 px"
PLACES, LABELS = {"small": 0, "smaller": 3}, {"small": "small", "smaller": "smaller $ & <b>"}


def table(**changes: object) -> pd.DataFrame:
    rows = [
        ("grid", "small", 1, "done", 0.0001, "heavy", 0.5),
        ("grid", "small", 2, "done", 0.003, "light", 0.7),
        ("optuna", "small", 1, "pruned", 0.001, "light", 0.6),
        ("optuna", "small", 2, "done", 0.001, "extreme", 0.65),
        ("grid", "smaller", 1, "done", 0.001, "light", 0.4),
        ("grid", "smaller", 2, "queued", 0.003, "heavy", None),
    ]
    columns = ["engine", "attempt", "number", "state", "lr", "augmentation", "val_iou"]
    return pd.DataFrame(rows, columns=columns).assign(**changes)


def pixels_of(image: np.ndarray, index: int) -> int:
    rgb = bytes.fromhex(colour(index)[1:])
    return int((image == list(rgb)).all(axis=2).sum())


@pytest.mark.parametrize("key", ["lr", "augmentation"])
def test_runs_are_drawn_in_their_attempts_colour(key: str) -> None:
    image = against(table(), key, PLACES, LABELS, TITLE)
    assert image.dtype == np.uint8
    assert image.shape[1] == 1600
    assert pixels_of(image, 0) > pixels_of(image, 3) > 100
    assert pixels_of(image, 1) == 0


def test_a_pruned_run_is_hollow() -> None:
    whole = against(table(state="done"), "lr", PLACES, LABELS, TITLE)
    assert pixels_of(against(table(), "lr", PLACES, LABELS, TITLE), 0) != pixels_of(whole, 0)


def test_a_run_that_broke_off_has_a_mark_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    broke_off = table().replace("pruned", "broke off")
    found = {
        pixels_of(against(each, "lr", PLACES, LABELS, TITLE), 0)
        for each in (table(), table(state="done"), broke_off)
    }
    assert len(found) == 3
    figures = []
    monkeypatch.setattr(figures, "rendered", figures.append)
    against(broke_off, "lr", PLACES, LABELS, TITLE)
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()][1:] == [
        "run of the grid",
        "trial of Optuna (broke off)",
        "trial of Optuna",
    ]


def test_presets_are_in_the_order_of_their_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(figures, "rendered", figures.append)
    against(table(), "augmentation", PLACES, LABELS, TITLE)
    ticks = [label.get_text() for label in figures[0].axes[0].get_xticklabels()]
    assert ticks == ["light", "heavy", "extreme"]
    against(table(), "lr", PLACES, LABELS, TITLE)
    assert [label.get_text() for label in figures[1].axes[0].get_xticklabels()] == [
        *("0.0001", "0.001", "0.003")
    ]


def test_a_key_may_have_numbers_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """As freeze_epochs has, and ema_decay; read from a file, its numbers are words too."""
    figures = []
    monkeypatch.setattr(figures, "rendered", figures.append)
    for values in ([20, "all", 3, "null", 0, 3], ["20", "all", "3", "null", "0", "3"]):
        against(table(freeze_epochs=values), "freeze_epochs", PLACES, LABELS, TITLE)
        ticks = [label.get_text() for label in figures[-1].axes[0].get_xticklabels()]
        assert ticks == ["3", "20", "all", "null"]


def test_the_best_so_far_never_falls_and_pruned_runs_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = []
    monkeypatch.setattr(figures, "rendered", figures.append)
    best_so_far(table(), PLACES, LABELS, TITLE)
    lines = {line.get_label(): line.get_ydata() for line in figures[0].axes[0].get_lines()}
    assert list(lines["small, grid"]) == [0.5, 0.7]
    assert np.array_equal(lines["small, optuna"], [np.nan, 0.65], equal_nan=True)
    assert list(lines["smaller $ & <b>, grid"]) == [0.4]


def test_a_run_without_a_score_was_used_too(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(figures, "rendered", figures.append)
    first_failed = table()
    first_failed.loc[0, ["state", "val_iou"]] = ["failed", None]
    best_so_far(first_failed, PLACES, LABELS, TITLE)
    lines = {line.get_label(): line for line in figures[0].axes[0].get_lines()}
    assert list(lines["small, grid"].get_xdata()) == [2]
    assert list(lines["small, optuna"].get_xdata()) == [1, 2]


def test_the_same_runs_give_the_same_pixels() -> None:
    for draw in (
        lambda t: against(t, "lr", PLACES, LABELS, TITLE),
        lambda t: best_so_far(t, PLACES, LABELS, TITLE),
    ):
        assert np.array_equal(draw(table()), draw(table()))


def test_there_is_a_figure_for_each_key_that_says_of_what_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "rendered", drawn.append)
    params = parse_params(PARAMS.replace("dataset: tiny", "dataset: sample"))
    of_runs = pd.DataFrame(table(), columns=[*HEAD, "lr", "augmentation", *SCORES])
    assert list(figures.figures(of_runs, params)) == ["lr", "augmentation", "best"]
    for figure in drawn:
        assert figure.get_suptitle().startswith("Tuning, sample (synthetic), 64 px: ")
