from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roofseg.results.intervals import Estimate, estimate
from roofseg.results.verdicts import columns, compare_pairs, compare_with_best, judge

# IoU of six tiles by three attempts: `near` differs from `best` by noise.
SCORES = pd.DataFrame(
    {
        "best": [0.80, 0.70, 0.75, 0.65, 0.85, 0.78],
        "near": [0.82, 0.66, 0.76, 0.60, 0.86, 0.77],
        "low": [0.60, 0.55, 0.62, 0.40, 0.70, 0.59],
    }
)


def table(p_values: list[float]) -> pd.DataFrame:
    """Differences above 0 with these two-sided p-values, of 9 degrees of freedom."""
    rows = [columns(Estimate(-stats.t.ppf(p / 2, 9), 1, 9)) for p in p_values]
    return pd.DataFrame(rows)


def test_one_pair_is_scipys_paired_t_test() -> None:
    (found,) = compare_pairs(SCORES[["best", "low"]]).itertuples(index=False)
    test = stats.ttest_rel(SCORES.low, SCORES.best)
    assert found.p_value == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert (found.attempt, found.than, found.verdict) == ("low", "best", "behind")


def test_a_hand_worked_example_of_holm() -> None:
    """0.005, 0.01, 0.03, 0.04: 4 x 0.005 and 3 x 0.01 are below 0.05, 2 x 0.03 is not."""
    found = judge(table([0.01, 0.04, 0.03, 0.005]))
    assert found.p_value.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(found.verdict) == ["ahead", "tie", "tie", "ahead"]
    halves = stats.t.ppf(1 - np.array([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4]) / 2, 9)
    assert (found.high - found.difference).tolist() == pytest.approx(halves)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_the_interval_contains_zero_exactly_where_the_verdict_is_a_tie(p: list[float]) -> None:
    found = judge(table(p))
    sure = (found.p_value - 0.05).abs() > 1e-9  # at the level itself, rounding decides
    contains = (found.low <= 0) & (found.high >= 0)
    assert (contains == (found.verdict == "tie"))[sure].all()


def test_more_comparisons_make_more_ties() -> None:
    alone = compare_pairs(SCORES[["best", "low"]])
    noise = np.random.default_rng(0).normal(0, 0.2, (6, 60))
    crowd = SCORES.join(pd.DataFrame(noise, columns=[f"n{index}" for index in range(60)]))
    found = compare_pairs(crowd)
    pair = found[(found.attempt == "low") & (found.than == "best")]
    assert alone.verdict.tolist() == ["behind"]
    assert pair.p_value.item() > alone.p_value.item()


def test_with_the_best_only_those_pairs_are_counted() -> None:
    """Of 24 runs on six tiles, one is seven standard errors behind and the others are alike."""
    best = SCORES.best
    noise = np.random.default_rng(0).normal(0, 0.02, (6, 22))
    runs = pd.DataFrame(best.to_numpy()[:, None] + noise - noise.mean(0) - 0.001).add_prefix("run")
    low = best - 0.07 - 0.01 * np.sqrt(6 * 5 / 6) * np.array([1, -1, 1, -1, 1, -1])
    runs = runs.assign(low=low)
    runs.insert(0, "best", best)
    found, pairs = compare_with_best(runs), compare_pairs(runs)
    assert list(found.attempt) == list(runs.columns[1:])
    assert set(found.than) == {"best"}
    assert list(found.attempt[found.verdict == "behind"]) == ["low"]
    p_value = stats.ttest_rel(low, best).pvalue
    assert found.p_value[22] == pytest.approx(23 * p_value)
    pair = pairs[(pairs.attempt == "low") & (pairs.than == "best")]
    assert pair.verdict.item() == "tie"


def test_the_other_way_round_is_mirrored() -> None:
    one, other = compare_pairs(SCORES), compare_pairs(SCORES[["low", "near", "best"]])
    turned = {"behind": "ahead", "ahead": "behind", "tie": "tie"}
    by_pair = {frozenset((row.attempt, row.than)): row for row in other.itertuples()}
    for row in one.itertuples():
        mirror = by_pair[frozenset((row.attempt, row.than))]
        assert row.verdict == turned[mirror.verdict]
        assert (row.low, row.high) == pytest.approx((-mirror.high, -mirror.low))


def test_equal_attempts_tie_and_a_constant_difference_is_sure() -> None:
    found = compare_pairs(
        pd.DataFrame({"a": SCORES.best, "b": SCORES.best, "c": SCORES.best - 0.125})
    )
    assert list(found.verdict) == ["tie", "behind", "behind"]
    assert found.p_value.tolist() == pytest.approx([1, 0, 0])
    # The tiles do not show how far others would be off.
    assert found[["low", "high"]].isna().all(axis=None)


def test_one_tile_gives_no_verdict_and_one_attempt_has_no_pair() -> None:
    found = compare_pairs(SCORES.iloc[:1])
    assert set(found.verdict) == {""}
    assert found[["low", "high", "p_value"]].isna().all(axis=None)
    assert compare_pairs(SCORES[["best"]]).empty


def test_intervals_end_at_the_largest_difference_of_scores() -> None:
    found = compare_pairs(pd.DataFrame({"a": [0.1, 0.9], "b": [0.9, 0.2]}))
    assert (found.low.item(), found.high.item()) == (-1, 1)


@pytest.mark.parametrize("attempts", [2, 5])
def test_equal_attempts_are_rarely_told_apart(attempts: int) -> None:
    """At most 5 % of the tables have any false verdict, whoever leads."""
    rng, tables = np.random.default_rng(attempts), 60
    wrong = 0
    for _ in range(tables):
        scores = pd.DataFrame(rng.normal(0.5, 0.05, (6, attempts)))
        wrong += (compare_pairs(scores).verdict != "tie").any()
    assert wrong / tables <= 0.1


def test_estimates_of_another_kind_can_be_compared() -> None:
    doubled = compare_pairs(SCORES, lambda values: estimate(np.tile(values, 2)))
    assert (doubled.p_value <= compare_pairs(SCORES).p_value).all()
