"""The tables, texts and figures of the studies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from studies.test_declaration import STUDIES, TINY
from study_records import study_scores
from tiers import cases

from roofseg.drawing import colour
from roofseg.pages.page import Page, markdown
from roofseg.results.tables import number
from roofseg.studies.declaration import Studies, parse_studies
from roofseg.studies.report import figures
from roofseg.studies.report.results import StudyResults, summarize

ORDER = {"small": 0, "smaller": 1, "cold": 2, "cold (no SAM weights)": 2}
LEGEND = 1400  # pixels: the column where it begins, right of the lines
LEVEL = {"small": 0.7, "smaller": 0.6, "cold": 0.5}


def scores_of(studies: Studies, name: str, **changes: Any) -> pd.DataFrame:
    """Plausible scores of all runs of a study, on three tiles."""
    rng = np.random.default_rng(2)
    frames = []
    for run in studies.study(name).runs().values():
        level = LEVEL[run["attempt"]] + rng.normal(scale=0.01) + 0.05 * run.get("tiles", 0)
        level -= 0.1 * (run.get("augmentation") == "heavy" and run["attempt"] == "cold")
        frames.append(study_scores(ious=level + np.array([-0.02, 0.0, 0.02]), **run))
    return pd.concat(frames).assign(**changes)


def made(
    name: str, *, differences: Mapping[str, Sequence[str]] | None = None, **changes: Any
) -> StudyResults:
    studies = parse_studies(STUDIES, TINY)
    scores = scores_of(studies, name, **changes)
    return summarize(studies.study(name), scores, ORDER, "tiny, 64 px", differences or {})


def text(found: StudyResults) -> str:
    return markdown(Page("Study", "Tiny.", [found.section]))


@pytest.mark.parametrize(
    ("name", "comparison"),
    [("budget", "gains"), ("seeds", "pairs"), ("augmentation", "contrasts")],
)
def test_every_study_has_its_tables_a_text_and_a_figure(name: str, comparison: str) -> None:
    found = made(name)
    assert list(found.tables) == ["summary", "runs", comparison]
    assert found.figure.shape[1:] == (1600, 3)
    assert found.figure.dtype == np.uint8
    assert found.figure.min() < 100  # something is drawn on the white
    for label in found.tables["summary"].label:
        assert f"`{label}`" in text(found)
    assert "test is never read" in text(found)


@pytest.mark.parametrize(
    "name", cases(["budget", "seeds", "augmentation"], whole=["seeds", "augmentation"])
)
def test_the_same_runs_give_the_same_pixels_and_words(name: str) -> None:
    one, other = made(name), made(name)
    assert (one.figure == other.figure).all()
    assert text(one) == text(other)


def test_the_budget_says_what_more_tiles_bring() -> None:
    found = made("budget")
    row = found.tables["summary"].set_index(["label", "tiles"]).val_iou
    few, many = row["small", 1], row["small", 2]
    gain = found.tables["gains"].iloc[0]
    assert gain.difference == pytest.approx(many - few)
    paired = f"{number(gain.difference)} [{number(gain.low)}, {number(gain.high)}]"
    assert (
        f"With 1 training tile `small` reaches a val IoU of **{few:.3f}**, with 2 **{many:.3f}**: "
        f"a difference of {paired} ({gain.verdict})."
    ) in text(found)
    assert f"| `small` | 2 | 1 | {paired} | {gain.verdict} |" in re.sub(" +", " ", text(found))


def test_a_budget_of_one_size_has_no_gain() -> None:
    studies = parse_studies(STUDIES.replace("tiles: [1, 2]", "tiles: [2]"), TINY)
    scores = scores_of(studies, "budget")
    found = summarize(studies.study("budget"), scores, ORDER, "tiny", {})
    assert "With 2 training tiles `small` reaches" in text(found)
    assert "difference" not in text(found)


def test_the_budgets_line_rises_with_its_means() -> None:
    """Only the line of an attempt has its full colour; it is higher where the mean is higher."""
    ink = [int(colour(ORDER["small"])[at : at + 2], 16) for at in (1, 3, 5)]
    found = made("budget")
    rows, columns = np.nonzero((found.figure[:, :LEGEND] == ink).all(axis=2))
    left, right = rows[columns < columns.min() + 20], rows[columns > columns.max() - 20]
    # The means differ by more than 0.03, which is about half the height of the axes.
    means = found.tables["summary"].set_index(["label", "tiles"]).val_iou
    assert means["small", 2] - means["small", 1] > 0.03
    assert left.mean() - right.mean() > 100


def test_the_seeds_study_says_how_often_each_attempt_came_first() -> None:
    found = made("seeds")
    assert list(found.tables["summary"].rank_1) == [2, 0]
    assert "Kendall's tau between the rankings of two seeds is **1.00**" in text(found)
    assert "2 of 2" in text(found)


def test_a_single_attempt_has_a_spread_but_no_ranking() -> None:
    studies = parse_studies(STUDIES, TINY)
    scores = scores_of(studies, "seeds")
    found = summarize(studies.study("seeds"), scores[scores.label == "small"], ORDER, "tiny", {})
    assert "There are no rankings to compare" in text(found)
    assert found.tables["pairs"].empty
    assert found.figure.shape[1] == 1600


def test_the_hypothesis_is_answered_in_words() -> None:
    found = made("augmentation")
    assert "Does `cold` (frozen) prefer mild augmentation more than `small` does? **yes**" in text(
        found
    )
    assert "IoU under light minus that under heavy" in text(found)


def test_other_differences_between_recipes_are_named() -> None:
    assert "also differ" not in text(made("augmentation", differences={"cold": []}))
    said = text(made("augmentation", differences={"cold": ["architecture", "lr"]}))
    assert "They also differ in architecture and lr, so" in said


def test_intervals_from_a_single_seed_do_not_claim_to_cover_other_seeds() -> None:
    assert "for other val tiles and other seeds" in text(made("budget"))
    studies = parse_studies(STUDIES, TINY)
    scores = scores_of(studies, "budget")
    found = summarize(studies.study("budget"), scores[scores.seed == 1], ORDER, "tiny", {})
    assert "a single seed cannot cover other seeds" in text(found)
    assert "other val tiles and other seeds" not in text(found)


def test_a_frozen_vit_without_sam_weights_leaves_the_question_open() -> None:
    studies = parse_studies(STUDIES, TINY)
    scores = scores_of(studies, "augmentation")
    scores.loc[scores.attempt == "cold", "label"] = "cold (no SAM weights)"
    found = summarize(studies.study("augmentation"), scores, ORDER, "tiny", {})
    assert "for SAM the question stays open" in text(found)
    assert "for SAM" not in text(made("augmentation"))


def test_a_run_that_ended_early_is_named() -> None:
    assert "Ended early" not in text(made("budget"))
    broken = text(made("budget", failure="loss is not finite."))
    assert "**Ended early**: `small`, 1 training tile, light, seed 1: loss is not finite." in broken


def test_an_interval_far_wider_than_the_others_ends_in_arrows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "rendered", drawn.append)
    rows = [("a", "b", 0.1, 0.05, 0.15), ("a", "c", 0.2, 0.1, 0.3), ("b", "c", 0.1, -2, 2.2)]
    pairs = pd.DataFrame(rows, columns=["one", "other", "difference", "low", "high"])
    runs = pd.concat(study_scores(attempt=name, seed=1, ious=[0.5]) for name in "abc")
    places = {"a": 0, "b": 1, "c": 2}
    for table, arrows in ((pairs, ["<", ">"]), (pairs[:2], [])):
        figures.seeds(runs.rename(columns={"iou": "val_iou"}), table, places, "tiny")
        axes = drawn[-1].axes[1]
        low, high = axes.get_xlim()
        assert low > -1
        assert high < 1
        assert [
            line.get_marker() for line in axes.get_lines() if line.get_marker() in "<>"
        ] == arrows
