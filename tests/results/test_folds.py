from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from roofseg.results.folds import compare_pairs_of_folds, corrected_estimate, fold_ranks
from roofseg.results.intervals import half_width

TILES = [f"t{index}" for index in range(6)]
FOLDS = pd.Series([0, 0, 1, 1, 2, 2], TILES)


def test_a_hand_worked_example() -> None:
    """Fold means 1, 2 and 6: mean 3, S^2 = (4 + 1 + 9) / 2 = 7, error^2 = (1/3 + 1/2) 7."""
    found = corrected_estimate([0, 2, 1, 3, 5, 7], FOLDS)
    assert (found.value, found.freedom) == (3, 2)
    assert found.error**2 == pytest.approx(35 / 6)
    assert found.interval.high - 3 == pytest.approx(stats.t.ppf(0.975, 2) * (35 / 6) ** 0.5)


def test_without_the_correction_it_is_scipys_test_over_fold_means() -> None:
    rng = np.random.default_rng(0)
    means, folds = rng.normal(0.02, 0.05, 5), np.repeat(np.arange(5), 6)
    found = corrected_estimate(np.repeat(means, 6), folds)
    low, high = stats.ttest_1samp(means, 0).confidence_interval()
    # n_test / n_train is 1/4: 1/5 + 1/4 in place of 1/5.
    ratio = (0.45 / 0.2) ** 0.5
    half = half_width(found.error, found.freedom, 0.95)
    assert half == pytest.approx(ratio * (high - low) / 2)


def test_the_value_is_the_mean_over_tiles_where_folds_differ_in_size() -> None:
    found = corrected_estimate([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert found.value == 0.75
    # weights 3/4 and 1/4: S^2 = 2 (3/4 (1/4)^2 + 1/4 (3/4)^2) = 3/8, times 1/2 + 1
    assert found.error**2 == pytest.approx(9 / 16)


def test_one_fold_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 fold; expected two or more"):
        corrected_estimate([0.1, 0.2], [0, 0])


def test_it_is_right_at_least_as_often_as_it_says_where_training_sets_overlap() -> None:
    """A learner that predicts the mean of its training tiles, against one that predicts 0."""
    rng, folds = np.random.default_rng(2), np.repeat(np.arange(5), 6)
    hits, expected = 0, -(1 + 1 / 24) + 1 + 0.04  # of N(0.2, 1) and 24 training tiles
    for _ in range(200):
        numbers = rng.normal(0.2, 1, 30)
        learnt = np.array([numbers[folds != fold].mean() for fold in folds])
        found = corrected_estimate(numbers**2 - (numbers - learnt) ** 2, folds).interval
        hits += found.low <= expected <= found.high
    assert hits / 200 >= 0.95


def test_pairs_are_judged_together_and_tiles_found_by_name() -> None:
    rng = np.random.default_rng(1)
    best = pd.Series(rng.normal(0.8, 0.01, 6), TILES)
    scores = pd.DataFrame({"best": best, "near": best[::-1].to_numpy(), "low": best / 2})
    found = compare_pairs_of_folds(scores, FOLDS[::-1])
    assert list(found.verdict) == ["tie", "behind", "behind"]
    difference = corrected_estimate(scores.low - scores.best, FOLDS)
    assert found.difference[1] == pytest.approx(difference.value)
    p_value = 2 * stats.t.sf(-difference.value / difference.error, 2)
    assert found.p_value[1] == pytest.approx(3 * p_value)  # Holm: the smallest of three
    shuffled = compare_pairs_of_folds(scores.sample(frac=1, random_state=0), FOLDS)
    assert shuffled.p_value.tolist() == pytest.approx(found.p_value.tolist())


def test_ranks_are_those_of_the_means_of_a_fold() -> None:
    scores = pd.DataFrame(
        {"a": [0.9, 0.7, 0.5, 0.5, 0.2, 0.4], "b": [0.6, 0.8, 0.6, 0.4, 0.5, 0.5]}, TILES
    )
    ranks = fold_ranks(scores, FOLDS)
    assert ranks.to_dict("index") == {0: {"a": 1, "b": 2}, 1: {"a": 1, "b": 1}, 2: {"a": 2, "b": 1}}
