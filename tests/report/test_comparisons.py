from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_entries import board, entry

from roofseg.core.errors import UserError
from roofseg.report.attempts import Attempt
from roofseg.report.comparisons import compare_attempts
from roofseg.report.differences import against_leader
from roofseg.results.intervals import STATISTICS, Interval, estimate, score_interval
from roofseg.results.verdicts import compare_pairs

BEST = [0.80, 0.70, 0.75, 0.65, 0.85, 0.78]
# CLOSE differs from BEST by noise; WORSE is worse on every tile.
CLOSE = [0.82, 0.66, 0.76, 0.60, 0.86, 0.77]
WORSE = [0.60, 0.55, 0.62, 0.40, 0.70, 0.59]


def statuses(attempts: list[Attempt], split: str) -> list[str]:
    """The status of each attempt, in the order of their ranks."""
    made = board(*attempts)
    return [made.status(attempt, split) for attempt in made.ranked]


def test_the_leader_is_the_best_on_val_whatever_test_says() -> None:
    best = entry("best", {"val": BEST, "test": WORSE})
    close = entry("close", {"val": CLOSE, "test": BEST})
    made = board(close, best)
    assert [attempt.name for attempt in made.ranked] == ["best", "close"]
    found = made.comparisons
    assert list(found.split) == ["val", "test"]
    assert set(found.than) == {"best"}
    assert statuses([close, best], "val") == ["leader", "tie"]
    assert statuses([close, best], "test") == ["leader", "ahead"]
    assert found.difference[1] > 0


def test_attempts_with_equal_iou_stay_in_the_given_order() -> None:
    names = ["c", "x", "a", "y", "b", "z"]
    twins = [entry(name, {"val": WORSE if name in "xyz" else BEST}) for name in names]
    assert [attempt.name for attempt in board(*twins).ranked] == ["c", "a", "b", "x", "y", "z"]


def test_every_pair_has_its_verdict() -> None:
    order = [
        entry("best", {"val": BEST}),
        entry("close", {"val": CLOSE}),
        entry("worse", {"val": WORSE}),
    ]
    found = compare_attempts(order)
    assert list(zip(found.attempt, found.than, strict=True)) == [
        ("close", "best"), ("worse", "best"), ("worse", "close"),
    ]  # fmt: skip
    assert list(found.verdict) == ["tie", "behind", "behind"]
    assert list((found.low <= 0) & (found.high >= 0)) == [True, False, False]
    assert set(found.tiles) == {6}
    assert statuses(order, "val") == ["leader", "tie", "behind"]


def test_scores_and_differences_equal_those_of_results() -> None:
    best, close = entry("best", {"val": BEST}), entry("close", {"val": CLOSE})
    found = close.score("val", "f1")
    expected = score_interval(estimate(close.counts("val"), STATISTICS["f1"]))
    assert found == Interval(close.scores["val"]["f1"], expected.low, expected.high)
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    (row,) = compare_attempts([best, close]).to_dict("records")
    (paired,) = compare_pairs(pd.DataFrame({"best": BEST, "close": CLOSE})).to_dict("records")
    assert row["difference"] == pytest.approx(-0.01, abs=1e-12)
    for name in ("difference", "low", "high", "p_value"):
        assert row[name] == pytest.approx(paired[name], abs=1e-12)


def test_tiles_are_paired_by_name_in_any_order() -> None:
    leader = entry("leader", {"val": BEST})
    ours = entry("ours", {"val": CLOSE})
    turned = entry("ours", {"val": CLOSE[::-1]}, names=[f"t{index}" for index in range(6)][::-1])
    expected, found = (
        compare_attempts([leader, attempt]).iloc[0].to_dict() for attempt in (ours, turned)
    )
    assert found == pytest.approx(expected, abs=1e-12)


def test_scores_on_other_tiles_than_the_leader_are_an_error() -> None:
    others = entry("late", {"val": CLOSE}, names=["t0", "t1", "t2", "t3", "t4", "t9"])
    with pytest.raises(UserError, match=r"the val tiles that late .*`dvc repro evaluate@late"):
        compare_attempts([entry("best", {"val": BEST}), others])


def test_sealed_splits_are_not_compared() -> None:
    opened = entry("opened", {"val": WORSE, "test": WORSE})
    sealed = entry("sealed", {"val": BEST})
    found = compare_attempts([sealed, opened])
    assert list(found.split) == ["val"]
    # The leader is sealed on test, so there is nothing to compare with.
    assert statuses([sealed, opened], "test") == ["sealed", ""]
    assert np.isnan(dataclasses.astuple(sealed.score("test", "iou"))).all()


def test_attempts_are_compared_on_test_while_the_leader_is_sealed_there() -> None:
    ious = {"a": [0.8, 0.7, 0.75], "b": [0.6, 0.55, 0.5]}
    opened = [entry(name, {"val": values, "test": values}) for name, values in ious.items()]
    section = against_leader(board(entry("best", {"val": [0.9, 0.92, 0.93]}), *opened))
    table, _, on_val, on_test = section.blocks
    assert table.header == ["attempt", "val IoU", "p", " "]
    assert (len(on_val.rows), len(on_test.rows)) == (2, 1)
    assert str(on_test.rows[0][0]) == "b"


def test_a_single_tile_gives_no_verdict() -> None:
    order = [entry("best", {"val": [0.9]}), entry("worse", {"val": [0.1]})]
    (row,) = compare_attempts(order).to_dict("records")
    assert row["verdict"] == ""
    assert np.isnan([row["low"], row["high"], row["p_value"]]).all()
    assert np.isnan(order[0].score("val", "iou").low)


def test_a_single_attempt_leads() -> None:
    alone = [entry("alone", {"val": BEST})]
    found = compare_attempts(alone)
    assert found.empty
    assert "p_value" in found
    assert statuses(alone, "val") == ["leader"]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=4))
def test_nobody_is_ahead_of_the_leader_on_val(attempts: list[list[float]]) -> None:
    order = [entry(f"a{index}", {"val": ious}) for index, ious in enumerate(attempts)]
    found = board(*order).comparisons
    assert (found.difference <= 1e-12).all()
    assert ((found.verdict == "tie") == (found.p_value > 0.05)).all()
    leader, *others = statuses(order, "val")
    assert leader == "leader"
    assert set(others) <= {"tie", "behind"}
