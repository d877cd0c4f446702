"""The table of all runs, the best of each attempt, and how to apply it."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
import pytest
from project import PARAMS

from roofseg.recipe.parsing import parse_params
from roofseg.results.verdicts import compare_with_best
from roofseg.tuning.grid import Run
from roofseg.tuning.table import DONE, Result, how_to_apply, tuning_table, winners

PARAMETERS = parse_params(PARAMS)
TILES = [f"tile{number}" for number in range(6)]


def counts(*hits: int) -> pd.DataFrame:
    """Six tiles with 100 building pixels and no false positives: IoU = hits / 100."""
    rows = [(tile, hit, 0, 100 - hit) for tile, hit in zip(TILES, hits, strict=True)]
    return pd.DataFrame(rows, columns=["tile", "tp", "fp", "fn"])


def run(attempt: str, name: str, **values: object) -> Run:
    return Run(attempt, name, values, {"epochs": 1, **values})


GOOD, NEAR = counts(80, 82, 84, 86, 88, 90), counts(79, 84, 82, 88, 85, 91)
BAD = counts(*[50] * 6)
ONE = run("small", "tune-small-1", lr=0.001, augmentation="light")
TWO = run("small", "tune-small-2", lr=0.01, augmentation="heavy")
THREE = run("small", "tune-small-3", lr=0.1, augmentation="heavy")
FAILED = run("small", "tune-small-4", lr=0.5, augmentation="heavy")
OTHER = run("smaller", "tune-smaller-1", lr=0.0003, dropout=0.5)
LATER = run("smaller", "tune-smaller-2", lr=0.001, dropout=0.0)
RESULTS = [
    Result(ONE, DONE, NEAR),
    Result(OTHER, DONE, BAD),
    Result(TWO, DONE, GOOD.sample(frac=1, random_state=1)),
    Result(LATER, "queued"),
    Result(THREE, DONE, BAD),
    Result(FAILED, "failed"),
]


@pytest.fixture
def table() -> pd.DataFrame:
    return tuning_table(RESULTS)


def test_every_run_has_its_row_by_attempt(table: pd.DataFrame) -> None:
    assert list(table.attempt) == ["small"] * 4 + ["smaller"] * 2
    assert list(table.columns) == [
        *("attempt", "number", "name", "state", "lr", "augmentation", "dropout"),
        *("val_iou", "val_f1", "difference", "low", "high", "p_value", "verdict"),
    ]
    assert list(table.number) == [1, 2, 3, 4, 1, 2]
    assert table.augmentation.isna().sum() == table.attempt.eq("smaller").sum()
    assert table.loc[0, "val_iou"] == pytest.approx(0.848333, abs=1e-6)
    queued = table[table.state == "queued"].iloc[0]
    assert queued[["val_iou", "val_f1", "difference", "verdict"]].isna().all()


def test_a_run_without_scores_is_not_the_best(table: pd.DataFrame) -> None:
    assert dict(zip(winners(table).attempt, winners(table).name, strict=True)) == {
        "small": "tune-small-2",
        "smaller": "tune-smaller-1",
    }


def test_the_earlier_of_two_equal_runs_is_the_best() -> None:
    table = tuning_table([Result(TWO, DONE, GOOD), Result(ONE, DONE, GOOD)])
    assert list(winners(table).name) == ["tune-small-2"]


def test_runs_are_compared_with_the_best_alone(table: pd.DataFrame) -> None:
    """Tiles are paired by name, in whatever order the file has them."""
    assert list(table.verdict[:3]) == ["tie", "leader", "behind"]
    ious = {"good": GOOD.tp / 100, "near": NEAR.tp / 100, "bad": BAD.tp / 100}
    wanted = compare_with_best(pd.DataFrame(ious)).iloc[0]
    assert (wanted.attempt, wanted.than) == ("near", "good")
    assert table.loc[0, ["difference", "low", "high", "p_value"]].tolist() == pytest.approx(
        wanted[["difference", "low", "high", "p_value"]].tolist()
    )
    assert table.loc[1, "difference"] == 0
    assert table.loc[1, ["low", "high", "p_value"]].isna().all()


def test_without_scores_there_is_no_best() -> None:
    table = tuning_table([Result(ONE, "running"), Result(TWO, "failed")])
    assert table.difference.isna().all()
    assert winners(table).empty
    assert tuning_table([]).empty


def test_null_is_shown_and_a_missing_value_is_none() -> None:
    runs = [run("small", "a", ema_decay=None), run("small", "b", ema_decay=0.9), OTHER]
    table = tuning_table([Result(run, DONE, GOOD) for run in runs])
    assert list(table.ema_decay[:2]) == ["null", 0.9]
    assert pd.isna(table.ema_decay[2])


def commands(results: list[Result], *, applicable: Collection[str] = ()) -> list[str]:
    runs = {result.run.name: result.run for result in results}
    text = how_to_apply(tuning_table(results), runs, PARAMETERS, applicable=applicable)
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_the_first_of_the_best_is_applied_and_the_next_is_run_beside_it() -> None:
    """`dvc exp apply` brings all of params.yaml, so a second one would undo the first."""
    assert commands(RESULTS, applicable={"tune-small-2", "tune-smaller-1"}) == [
        "dvc exp apply tune-small-2",
        "roofseg finalize small",
        'git commit -am "Tuned small" && dvc repro',
        "dvc exp run -S attempts.smaller.lr=0.0003 -S +attempts.smaller.dropout=0.5 "
        "evaluate@smaller",
        "roofseg finalize smaller",
        'git commit -am "Tuned smaller" && dvc repro',
    ]


def test_a_run_that_cannot_be_applied_is_run_with_its_tuned_values() -> None:
    """Shortened runs and experiments of an earlier commit: epochs, of common, are not set."""
    found = commands(RESULTS)
    assert not [line for line in found if "apply" in line or "epochs" in line]
    assert found[0] == (
        "dvc exp run -S +attempts.small.lr=0.01 -S +attempts.small.augmentation=heavy "
        "evaluate@small"
    )


def test_the_scored_runs_and_the_ties_are_counted() -> None:
    runs = {result.run.name: result.run for result in RESULTS}
    text = how_to_apply(tuning_table(RESULTS), runs, PARAMETERS, applicable=())
    assert "the best of 3 recipes; 1 of the others ties with it" in text
    assert "the best of 1 recipe; 0 of the others tie with it" in text


def test_a_single_val_tile_gives_no_verdicts() -> None:
    alone = [Result(one, DONE, rows[:1]) for one, rows in ((ONE, GOOD), (TWO, NEAR))]
    table = tuning_table(alone)
    assert list(table.verdict) == ["leader", ""]
    text = how_to_apply(table, {"tune-small-1": ONE}, PARAMETERS, applicable=())
    assert "the best of 2 recipes; a single val tile gives no verdicts" in text
