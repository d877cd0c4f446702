"""The table of all runs, the best of each attempt, and how to apply it."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
import pytest
from project import PARAMS

from roofseg.recipe.params import parse_params
from roofseg.results.intervals import STATISTICS, compare
from roofseg.tuning.grid import Run
from roofseg.tuning.table import (
    BROKE_OFF,
    DONE,
    PRUNED,
    Result,
    how_to_apply,
    tuning_table,
    winners,
)

PARAMETERS = parse_params(PARAMS)
TILES = [f"tile{number}" for number in range(6)]


def val(*hits: int) -> pd.DataFrame:
    """Six tiles with 100 pixels of building, all that is claimed is right: IoU = hits / 100."""
    rows = [(tile, hit, 0, 100 - hit) for tile, hit in zip(TILES, hits, strict=True)]
    return pd.DataFrame(rows, columns=["tile", "tp", "fp", "fn"])


def run(attempt: str, name: str, **values: object) -> Run:
    return Run(attempt, name, values, {"epochs": 1, **values})


GOOD, NEAR, BAD = val(80, 82, 84, 86, 88, 90), val(79, 84, 82, 88, 85, 91), val(*[50] * 6)
ONE = run("small", "tune-small-1", lr=0.001, augmentation="light")
TWO = run("small", "tune-small-2", lr=0.01, augmentation="heavy")
THREE = run("small", "tune-small-3", lr=0.1, augmentation="heavy")
OTHER = run("smaller", "tune-smaller-1", lr=0.0003, dropout=0.5)
LATER = run("smaller", "tune-smaller-2", lr=0.001, dropout=0.0)
RESULTS = [
    Result(ONE, "grid", 1, DONE, NEAR),
    Result(OTHER, "grid", 1, DONE, BAD),
    Result(TWO, "grid", 2, DONE, GOOD.sample(frac=1, random_state=1)),
    Result(LATER, "grid", 2, "queued"),
    Result(THREE, "optuna", 1, DONE, BAD),
    Result(ONE, "optuna", 2, PRUNED, val(*[99] * 6)),
]


@pytest.fixture
def table() -> pd.DataFrame:
    return tuning_table(RESULTS)


def test_every_run_has_its_row_by_attempt(table: pd.DataFrame) -> None:
    assert list(table.attempt) == ["small"] * 4 + ["smaller"] * 2
    assert list(table.columns) == [
        *("engine", "attempt", "number", "name", "state", "lr", "augmentation", "dropout"),
        *("val_iou", "val_f1", "difference", "low", "high", "tie"),
    ]
    assert table.augmentation.isna().sum() == table.attempt.eq("smaller").sum()
    assert table.loc[0, "val_iou"] == pytest.approx(0.848333, abs=1e-6)
    queued = table[table.state == "queued"].iloc[0]
    assert queued[["val_iou", "val_f1", "difference", "tie"]].isna().all()


def test_the_best_is_whole(table: pd.DataFrame) -> None:
    """A pruned run is no winner, whatever its IoU; nor is one without a score."""
    assert dict(zip(winners(table).attempt, winners(table).name, strict=True)) == {
        "small": "tune-small-2",
        "smaller": "tune-smaller-1",
    }


def test_a_run_that_broke_off_is_no_winner() -> None:
    """There is no model of it; its score is shown all the same."""
    broke = Result(THREE, "optuna", 1, BROKE_OFF, val(*[99] * 6))
    table = tuning_table([*RESULTS[:4], broke, Result(LATER, "optuna", 1, BROKE_OFF)])
    assert list(winners(table).name) == ["tune-small-2", "tune-smaller-1"]
    row = table[table.name == "tune-small-3"].iloc[0]
    assert (row.state, row.val_iou) == ("broke off", pytest.approx(0.99))
    assert row.difference == pytest.approx(0.99 - 0.85)
    assert pd.isna(table[table.state == BROKE_OFF].val_iou.iloc[1])


def test_ties_are_those_of_the_paired_interval(table: pd.DataFrame) -> None:
    """Tiles are paired by name, whatever their order in the file."""
    assert list(table.tie[:4]) == ["yes", "yes", "no", "no"]
    counts = ["tp", "fp", "fn"]
    wanted = compare(NEAR[counts].to_numpy(), GOOD[counts].to_numpy(), STATISTICS["iou"])
    row = table.loc[0]
    assert (row.difference, row.low, row.high) == (
        wanted.difference.value,
        wanted.difference.low,
        wanted.difference.high,
    )
    assert table.loc[1, "difference"] == 0


def test_without_a_whole_run_there_is_no_best() -> None:
    table = tuning_table([Result(ONE, "optuna", 1, PRUNED, GOOD), Result(TWO, "grid", 1, "failed")])
    assert table.difference.isna().all()
    assert winners(table).empty


def test_null_is_a_value_and_no_value_is_none() -> None:
    runs = [run("small", "a", ema_decay=None), run("small", "b", ema_decay=0.9), OTHER]
    table = tuning_table([Result(each, "grid", 1, DONE, GOOD) for each in runs])
    assert list(table.ema_decay[:2]) == ["null", 0.9]
    assert pd.isna(table.ema_decay[2])


def commands(results: list[Result], *, applicable: Collection[str] = ()) -> list[str]:
    runs = {result.run.name: result.run for result in results}
    text = how_to_apply(tuning_table(results), runs, PARAMETERS, applicable=applicable)
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_the_first_winner_is_applied_and_the_next_run_beside_it() -> None:
    """`dvc exp apply` brings all of params.yaml, so a second one would undo the first."""
    assert commands(RESULTS, applicable={"tune-small-2", "tune-smaller-1"}) == [
        "dvc exp apply tune-small-2",
        "make finalize ATTEMPTS=small",
        'git commit -am "Tuned small" && dvc repro',
        "dvc exp run -S attempts.smaller.lr=0.0003 -S +attempts.smaller.dropout=0.5 "
        "evaluate@smaller",
        "make finalize ATTEMPTS=smaller",
        'git commit -am "Tuned smaller" && dvc repro',
    ]


def test_what_cannot_be_applied_is_run_with_what_was_tuned() -> None:
    """Shortened runs, experiments of an earlier commit, trials of Optuna: epochs are not set."""
    found = commands(RESULTS)
    assert not [line for line in found if "apply" in line or "epochs" in line]
    assert found[0] == (
        "dvc exp run -S +attempts.small.lr=0.01 -S +attempts.small.augmentation=heavy "
        "evaluate@small"
    )


def test_recipes_that_were_scored_are_counted() -> None:
    """The best of one run is no best of two, and a run of both engines ties with itself alone."""
    runs = {result.run.name: result.run for result in RESULTS}
    both = [*RESULTS, Result(TWO, "optuna", 3, DONE, GOOD), Result(ONE, "optuna", 4, DONE, NEAR)]
    said = how_to_apply(tuning_table(both), runs, PARAMETERS, applicable=())
    assert "the best of 3 recipes, with which 1 of the others tie" in said
    assert "the best of 1 recipes, with which 0 of the others tie" in said
