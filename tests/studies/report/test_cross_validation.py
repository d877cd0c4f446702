"""The tables, the text and the figure of cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from studies.test_declaration import STUDIES, TINY
from study_records import study_scores, write_run

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, write_json
from roofseg.pages.page import Page, markdown
from roofseg.results.folds import compare_pairs_of_folds
from roofseg.studies.declaration import Study, parse_studies
from roofseg.studies.report.cross_validation import FoldTables, fold_tables, folds_section
from roofseg.studies.report.records import finished_runs
from roofseg.studies.report.results import gather, summarize

FOLD = np.tile([1, 2, 3], 4)
LEVEL = {"small": 0.55, "smaller": 0.7, "cold": 0.3}


def fold_scores(level: dict[str, float] = LEVEL, **changes: Any) -> pd.DataFrame:
    """Scores of 12 tiles, t0 to t11: the first four are val, and tile i is in fold i % 3 + 1."""
    rng = np.random.default_rng(5)
    tiles = rng.normal(scale=0.05, size=12)
    runs = [
        study_scores(attempt=name, seed=1, ious=iou + tiles + rng.normal(scale=0.03, size=12))
        for name, iou in level.items()
    ]
    split = np.where(np.arange(12) < 4, "val", "train")
    frames = [run.assign(fold=FOLD, split=split, best_epoch=FOLD) for run in runs]
    return pd.concat(frames).assign(**changes)


def text(scores: pd.DataFrame) -> str:
    section = folds_section(scores, fold_tables(scores), np.zeros((9, 9, 3), np.uint8))
    return markdown(Page("Study", "Tiny.", [section]))


@pytest.fixture(scope="module")
def tables() -> FoldTables:
    return fold_tables(fold_scores())


def test_every_tile_is_a_row_for_each_attempt(tables: FoldTables) -> None:
    scores = fold_scores()
    assert len(tables.tiles) == 36
    assert list(tables.tiles.columns) == ["label", "tile", "split", "fold", "iou", "f1"]
    assert list(tables.tiles.iou) == list(scores.iou)
    assert list(tables.runs.tiles) == [4] * 9
    own = scores[(scores.label == "small") & (scores.fold == 2)]
    run = tables.runs[(tables.runs.label == "small") & (tables.runs.fold == 2)].iloc[0]
    assert (run.iou, run["rank"], run.best_epoch) == (pytest.approx(own.iou.mean()), 2, 2)


def test_the_summary_counts_the_folds_that_an_attempt_leads(tables: FoldTables) -> None:
    summary = tables.summary.set_index("label")
    assert list(summary.index) == list(LEVEL)
    assert summary["first"].to_dict() == {"small": 0, "smaller": 3, "cold": 0}
    scores = fold_scores()
    for label, row in summary.iterrows():
        own = scores[scores.label == label]
        assert row.iou == pytest.approx(own.iou.mean())
        assert row.low < row.iou < row.high
        assert row["min"] == pytest.approx(own.groupby("fold").iou.mean().min())


def test_pairs_are_those_of_all_tiles_beside_those_of_val_and_of_single_folds(
    tables: FoldTables,
) -> None:
    pairs = [("smaller", "small"), ("smaller", "cold"), ("small", "cold")]
    assert list(zip(tables.pairs.one, tables.pairs.other, strict=True)) == pairs
    wide = fold_scores().pivot(index="tile", columns="label", values="iou")
    folds = pd.Series(FOLD, [f"t{index}" for index in range(12)])
    expected = compare_pairs_of_folds(wide[["cold", "small", "smaller"]], folds)
    first = expected[(expected.attempt == "smaller") & (expected.than == "small")].iloc[0]
    found = tables.pairs.iloc[0]
    for name in ("difference", "low", "high", "p_value", "verdict"):
        assert found[name] == first[name]
    assert found.ahead == 3
    val = wide.loc[["t0", "t1", "t2", "t3"]]
    assert found.val_difference == pytest.approx((val.smaller - val.small).mean())
    assert (found.val_verdict == "ahead") == (found.val_low > 0)
    single = tables.single_folds
    assert list(single.fold) == [1] * 3 + [2] * 3 + [3] * 3
    assert list(zip(single.one, single.other, strict=True)) == pairs * 3
    alone = wide.loc[folds[folds == 2].index]
    of_two = single[(single.fold == 2) & (single.one == "small")].iloc[0]
    assert of_two.difference == pytest.approx((alone.small - alone.cold).mean())
    assert of_two.p_value >= ttest_rel(alone.small, alone.cold).pvalue  # corrected for three pairs


def test_the_text_says_what_val_alone_and_single_folds_would_have_said() -> None:
    said = text(fold_scores())
    assert "Every one of the 12 tiles of train and val is scored once" in said
    assert "`smaller` has the highest mean IoU" in said
    assert "is first in 3 of 3 folds" in said
    assert "The 4 tiles of val alone would have decided" in said
    assert "of 9 comparisons" in said
    assert "test is never read" in said


def test_equal_attempts_tie_everywhere() -> None:
    scores = fold_scores({"small": 0.5})
    scores = pd.concat([scores, scores.assign(label="smaller", attempt="smaller")])
    pair = fold_tables(scores).pairs.iloc[0]
    assert (pair.verdict, pair.val_verdict, pair.ahead) == ("tie", "tie", 0)
    assert "**0** of 1 pair of attempts differ by more than chance" in text(scores)
    assert "would have decided 0 of 3 comparisons. In none of them" in text(scores)


def test_counts_of_one_are_singular() -> None:
    said = text(fold_scores({"small": 0.7, "cold": 0.2}, epochs=1, draws=4))
    assert "**1** of 1 pair of attempts differs by more than chance." in said
    assert "at most 1 epoch of 4 draws" in said


def test_folds_of_a_single_tile_decide_nothing() -> None:
    scores = fold_scores({"small": 0.7, "cold": 0.2})
    few = scores[scores.tile.isin(["t0", "t1", "t2"])]
    assert "A study of one fold's tiles would have decided 0 of 3 comparisons." in text(few)


def test_one_attempt_has_no_pairs_but_scores_of_all_tiles() -> None:
    scores = fold_scores({"small": 0.5})
    found = fold_tables(scores)
    assert found.pairs.empty
    assert found.single_folds.empty
    assert "first in 3 of 3 folds" in text(scores)
    assert "differ by" not in text(scores)


def test_a_run_that_ended_early_is_named() -> None:
    scores = fold_scores()
    scores["failure"] = np.where((scores.label == "cold") & (scores.fold == 3), "Loss is NaN.", "")
    assert "**Ended early**: `cold`, fold 3: Loss is NaN. Its score" in text(scores)


@pytest.mark.whole
@pytest.mark.parametrize("level", [LEVEL, {"small": 0.5}])
def test_the_results_have_a_figure_with_or_without_pairs(level: dict[str, float]) -> None:
    study = parse_studies(STUDIES, TINY).study("folds")
    order = {name: at for at, name in enumerate(LEVEL)}
    found = summarize(study, fold_scores(level), order, "tiny", {})
    assert list(found.tables) == ["tiles", "runs", "summary", "pairs", "single_folds"]
    assert found.figure.shape[1:] == (1600, 3)
    assert found.figure.min() < 100  # something is drawn on the white


@pytest.mark.parametrize(
    ("said", "columns"),
    [
        ("Neighbouring tiles are in one fold.", {}),
        (
            "squares of 75 m, and the tiles of a square are in one fold; 6 of 12 tiles touch",
            {"side": 75.0, "touching": 6},
        ),
        ("nothing tells the neighbours of 12 tiles without georeference", {"unplaced": 12}),
    ],
)
def test_the_text_says_which_neighbours_are_together(said: str, columns: dict[str, Any]) -> None:
    assert said in text(fold_scores(**columns))


def test_fewer_than_five_folds_are_noted() -> None:
    assert "With fewer than 5 folds" in text(fold_scores())


DIVISION = {"folds": 3, "seed": 1, "sha256": "one", "side": None, "touching": 0, "unplaced": 0}


def write_runs(folder: Path, study: Study, divisions: dict[str, dict[str, Any]]) -> None:
    """Write a record of each run, of these divisions by attempt; it scores a tile per fold."""
    for run, values in study.runs().items():
        write_run(
            folder / "folds" / f"{run}.json",
            attempt=values["attempt"],
            seed=1,
            counts=[(60, 20, 20)],
            fold=values["fold"],
            first=values["fold"],
            division=divisions[values["attempt"]],
        )


@pytest.mark.parametrize("change", [{"sha256": "two"}, {"folds": 5}])
def test_records_of_two_divisions_are_an_error(tmp_path: Path, change: dict[str, Any]) -> None:
    study = parse_studies(STUDIES, TINY).study("folds")
    write_runs(tmp_path, study, {"small": DIVISION, "smaller": DIVISION | change})
    with pytest.raises(UserError, match=r"folds: .* different divisions .*`roofseg studies folds`"):
        gather("folds", study, TINY, tmp_path)
    write_runs(tmp_path, study, dict.fromkeys(study.attempts, DIVISION | change))
    if "folds" in change:
        with pytest.raises(UserError, match="found 5 folds; expected one division into 3"):
            gather("folds", study, TINY, tmp_path)


@pytest.mark.parametrize("tile", [2, 9])
def test_a_tile_that_one_attempt_lacks_is_an_error(tmp_path: Path, tile: int) -> None:
    study = parse_studies(STUDIES, TINY).study("folds")
    write_runs(tmp_path, study, dict.fromkeys(study.attempts, DIVISION))
    path, counts = tmp_path / "folds" / "small-3.json", [(60, 20, 20)]
    write_run(path, attempt="small", seed=1, counts=counts, fold=3, first=tile, division=DIVISION)
    with pytest.raises(UserError, match=r"folds: expected one score of each tile"):
        gather("folds", study, TINY, tmp_path)


@pytest.mark.parametrize("change", [{"seed": 2}, {"folds": 5}, {"sha256": "two"}])
def test_runs_of_an_earlier_division_do_not_count_as_finished(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    study = parse_studies(STUDIES, TINY).study("folds")
    write_runs(tmp_path, study, dict.fromkeys(study.attempts, DIVISION))
    for run, values in study.runs().items():  # the recipes of the study
        path = tmp_path / "folds" / f"{run}.json"
        recipe = study.recipe(TINY, values).model_dump(mode="json")
        write_json(path, read_json(path) | {"recipe": recipe})
    assert finished_runs(tmp_path, "folds", study, TINY) == list(study.runs())
    for fold in (1, 2):
        path = tmp_path / "folds" / f"smaller-{fold}.json"
        write_json(path, read_json(path) | {"division": DIVISION | change})
    finished = ["small-1", "small-2", "small-3", "smaller-3"]
    assert finished_runs(tmp_path, "folds", study, TINY) == finished
