from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_entries import board, entry

from roofseg.core.errors import UserError
from roofseg.report.attempts import Attempt
from roofseg.report.comparisons import compare_with_leader, interval_and_p_disagree
from roofseg.results.intervals import STATISTICS, Interval, compare, interval

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
    assert set(found.leader) == {"best"}
    assert statuses([close, best], "val") == ["leader", "tie"]
    assert statuses([close, best], "test") == ["leader", "ahead"]
    assert found.difference[1] > 0


def test_attempts_with_equal_iou_stay_in_the_given_order() -> None:
    names = ["c", "x", "a", "y", "b", "z"]
    twins = [entry(name, {"val": WORSE if name in "xyz" else BEST}) for name in names]
    assert [attempt.name for attempt in board(*twins).ranked] == ["c", "a", "b", "x", "y", "z"]


def test_a_tie_is_an_interval_of_the_difference_that_contains_zero() -> None:
    order = [
        entry("best", {"val": BEST}),
        entry("close", {"val": CLOSE}),
        entry("worse", {"val": WORSE}),
    ]
    close, worse = compare_with_leader(order).to_dict("records")
    assert (close["tie"], worse["tie"]) == (True, False)
    assert close["low"] < 0 < close["high"]
    assert worse["low"] <= worse["difference"] <= worse["high"] < 0
    # The attempt is worse on all six tiles, so its p-value is the smallest possible.
    assert worse["p_value"] == worse["smallest_p"] == 2 / 2**6
    assert close["p_value"] > 0.3
    assert statuses(order, "val") == ["leader", "tie", "behind"]


def test_rows_whose_interval_and_p_value_disagree() -> None:
    close = [iou - worse for iou, worse in zip(BEST, (0.1, 0.1, 0.1, 0.1, 0.1, -0.01), strict=True)]
    order = [entry("best", {"val": BEST}), entry("a", {"val": close}), entry("b", {"val": WORSE})]
    found = compare_with_leader(order)
    assert found.p_value.tolist() == [4 / 64, 2 / 64]
    assert found.tie.tolist() == [False, False]
    assert interval_and_p_disagree(found).tolist() == [True, False]


def test_scores_and_differences_equal_those_of_intervals() -> None:
    best, close = entry("best", {"val": BEST}), entry("close", {"val": CLOSE})
    found = close.score("val", "f1")
    expected = interval(close.counts("val"), STATISTICS["f1"])
    assert found == Interval(close.scores["val"]["f1"], expected.low, expected.high)
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    (row,) = compare_with_leader([best, close]).to_dict("records")
    paired = compare(close.counts("val"), best.counts("val"), STATISTICS["iou"])
    assert row["difference"] == paired.difference.value == pytest.approx(-0.01, abs=1e-12)
    assert (row["low"], row["high"]) == (paired.difference.low, paired.difference.high)
    assert row["p_value"] == paired.p_value


def test_tiles_are_paired_by_name_in_any_order() -> None:
    leader = entry("leader", {"val": BEST})
    ours = entry("ours", {"val": CLOSE})
    turned = entry("ours", {"val": CLOSE[::-1]}, names=[f"t{index}" for index in range(6)][::-1])
    expected, found = (
        compare_with_leader([leader, attempt]).iloc[0].to_dict() for attempt in (ours, turned)
    )
    assert found == pytest.approx(expected, abs=1e-12)


def test_scores_on_other_tiles_than_the_leader_are_an_error() -> None:
    others = entry("late", {"val": CLOSE}, names=["t0", "t1", "t2", "t3", "t4", "t9"])
    with pytest.raises(UserError, match=r"the val tiles that late .*`dvc repro evaluate@late"):
        compare_with_leader([entry("best", {"val": BEST}), others])


def test_sealed_splits_are_not_compared() -> None:
    opened = entry("opened", {"val": WORSE, "test": WORSE})
    sealed = entry("sealed", {"val": BEST})
    found = compare_with_leader([sealed, opened])
    assert list(found.split) == ["val"]
    # The leader is sealed on test, so there is nothing to compare with.
    assert statuses([sealed, opened], "test") == ["sealed", ""]
    assert np.isnan(dataclasses.astuple(sealed.score("test", "iou"))).all()


def test_on_a_single_tile_everything_ties() -> None:
    order = [entry("best", {"val": [0.9]}), entry("worse", {"val": [0.1]})]
    (row,) = compare_with_leader(order).to_dict("records")
    assert (row["tie"], row["p_value"], row["smallest_p"]) == (True, 1, 1)
    assert np.isnan([row["low"], row["high"]]).all()
    assert np.isnan(order[0].score("val", "iou").low)


def test_a_single_attempt_leads() -> None:
    alone = [entry("alone", {"val": BEST})]
    found = compare_with_leader(alone)
    assert found.empty
    assert "p_value" in found
    assert statuses(alone, "val") == ["leader"]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=4))
def test_nobody_is_ahead_of_the_leader_on_val(attempts: list[list[float]]) -> None:
    order = [entry(f"a{index}", {"val": ious}) for index, ious in enumerate(attempts)]
    found = board(*order).comparisons
    assert (found.difference <= 1e-12).all()
    assert (found.p_value >= found.smallest_p).all()
    leader, *others = statuses(order, "val")
    assert leader == "leader"
    assert set(others) <= {"tie", "behind"}
