from __future__ import annotations

import subprocess
import sys
from dataclasses import astuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roofseg import metrics
from roofseg.results import intervals
from roofseg.results.intervals import (
    STATISTIC_COLUMNS,
    STATISTICS,
    compare,
    interval,
    intervals_of_tiles,
    mean_of,
    pooled,
    tile_mean,
)

# IoU of six tiles by two attempts: close, but never equal.
ONE = np.array([0.671452, 0.821280, 0.760562, 0.782459, 0.781673, 0.762731])
OTHER = np.array([0.601231, 0.801110, 0.770044, 0.699001, 0.712345, 0.723456])


def counts(tiles: int, seed: int) -> npt.NDArray[np.float64]:
    """Draw tp, fp and fn of some tiles with very different numbers of building pixels."""
    rng = np.random.default_rng(seed)
    return (rng.lognormal(6, 1.5, (tiles, 1)) * rng.random((tiles, 3))).round()


def as_table(rows: npt.NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["tp", "fp", "fn"])


def by_tile(name: str, *samples: npt.NDArray[np.float64]) -> float:
    """Make a statistic that takes tp, fp and fn as separate arguments, as scipy calls it."""
    return float(STATISTICS[name](np.stack(samples, axis=-1)))


@pytest.mark.parametrize("tiles", [2, 6, 7])
def test_interval_of_a_mean_equals_that_of_scipy(tiles: int) -> None:
    values = np.resize(ONE, tiles) + np.arange(tiles) / 100
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    found = interval(values)
    assert found.value == pytest.approx(values.mean(), abs=1e-15)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 draws instead of 10,000, since scipy calls a statistic once for each."""
    monkeypatch.setattr(intervals, "DRAWS", 500)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("name", STATISTICS)
def test_interval_of_counts_equals_that_of_scipy(name: str) -> None:
    rows = counts(6, seed=3)
    expected = stats.bootstrap(
        tuple(rows.T),
        lambda *samples: by_tile(name, *samples),
        paired=True,  # the same tiles of tp, fp and fn
        vectorized=False,
        n_resamples=500,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = interval(rows, STATISTICS[name])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_drawing_in_batches_gives_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, others = counts(20, seed=1), counts(20, seed=2)
    whole = interval(rows, STATISTICS["iou"]), compare(rows, others, STATISTICS["f1_pooled"])
    monkeypatch.setattr(intervals, "BATCH", 777)
    assert whole == (
        interval(rows, STATISTICS["iou"]),
        compare(rows, others, STATISTICS["f1_pooled"]),
    )


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("name", ["iou", "iou_pooled", "f1_pooled"])
def test_comparison_equals_that_of_scipy(name: str) -> None:
    ours, theirs = counts(6, seed=0), counts(6, seed=1)
    found = compare(ours, theirs, STATISTICS[name])

    def difference(*samples: npt.NDArray[np.float64]) -> float:
        return by_tile(name, *samples[:3]) - by_tile(name, *samples[3:])

    expected = stats.bootstrap(
        (*ours.T, *theirs.T),
        difference,
        paired=True,
        vectorized=False,
        n_resamples=500,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    bounds = (found.difference.low, found.difference.high)
    assert bounds == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.difference.value == pytest.approx(difference(*ours.T, *theirs.T), abs=1e-12)

    # scipy exchanges single values, so it gets the row numbers of tiles instead of their counts.
    pair = np.concatenate([ours, theirs])
    test = stats.permutation_test(
        (np.arange(6), np.arange(6, 12)),
        lambda one, other: difference(*pair[one].T, *pair[other].T),
        permutation_type="samples",
        vectorized=False,
        n_resamples=np.inf,
    )
    assert found.p_value == pytest.approx(test.pvalue, abs=1e-12)
    assert found.smallest_p == 2 / 2**6


def test_p_value_of_a_mean_is_that_of_all_sign_flips() -> None:
    test = stats.permutation_test(
        (ONE, OTHER),
        lambda one, other: np.mean(one - other),
        permutation_type="samples",
        vectorized=False,
        n_resamples=np.inf,
    )
    found = compare(ONE, OTHER)
    # OTHER is better on one tile only, by the smallest difference: 4 of the 64 sign patterns give a
    # mean at least as far from zero.
    assert found.p_value == pytest.approx(test.pvalue) == 4 / 64
    assert compare(OTHER, ONE).p_value == found.p_value
    assert compare(OTHER, ONE).difference.value == -found.difference.value


def test_the_example_of_fisher() -> None:
    """Darwin's 15 pairs of maize (Fisher 1935, section 21): 1726 of 32768, P = 5.267 %."""
    eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    found = compare(eighths, np.zeros(15))
    assert found.p_value == 1726 / 32768
    assert found.difference.value == pytest.approx(314 / 15)


def test_the_smallest_p_value_of_six_tiles() -> None:
    found = compare(ONE + 0.1, ONE)
    assert found.p_value == found.smallest_p == 0.03125
    assert not found.tie
    # Every resample has the same difference, so the interval has no width.
    assert found.difference.low == pytest.approx(0.1) == found.difference.high


def test_random_exchanges_of_many_tiles_come_close_to_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = counts(12, seed=8), counts(12, seed=9)
    exact = compare(ours, theirs, STATISTICS["iou"])
    monkeypatch.setattr(intervals, "EXACT_TILES", 11)
    drawn = compare(ours, theirs, STATISTICS["iou"])
    assert (exact.smallest_p, drawn.smallest_p) == (2 / 2**12, 1 / 10_001)
    assert 0.05 < exact.p_value < 0.95
    spread = np.sqrt(exact.p_value * (1 - exact.p_value) / 10_000)
    assert abs(drawn.p_value - exact.p_value) < 4 * spread
    assert compare(np.arange(1, 41), np.zeros(40)).p_value == 1 / 10_001


def test_a_tie_is_an_interval_that_contains_zero() -> None:
    noisy = ONE + np.array([0.1, -0.1, 0.1, -0.1, 0.05, -0.02])
    assert compare(ONE, noisy).tie
    assert compare(ONE, ONE).tie
    assert compare(ONE, ONE).p_value == 1
    assert not compare(ONE, ONE - 0.2).tie


def test_one_tile_has_no_interval() -> None:
    found = interval([0.7])
    assert found.value == 0.7
    assert np.isnan([found.low, found.high]).all()
    alone = compare([0.7], [0.2])
    assert (alone.p_value, alone.smallest_p, alone.tie) == (1, 1, True)


def test_a_score_needs_its_columns_for_every_tile() -> None:
    table = as_table(counts(6, seed=4)).assign(boundary_iou=ONE, boundary_iou_m=[None, *ONE[1:]])
    found = intervals_of_tiles(table)
    assert list(found) == [
        "iou", "f1", "iou_pooled", "f1_pooled", "precision", "recall", "boundary_iou",
    ]  # fmt: skip
    assert found["boundary_iou"] == interval(ONE)
    assert found["f1"] == interval(counts(6, seed=4), STATISTICS["f1"])


def test_comparing_different_numbers_of_tiles_is_an_error() -> None:
    with pytest.raises(ValueError, match="same shape"):
        compare(ONE, OTHER[:5])


TILES = st.lists(
    st.tuples(*[st.integers(0, 50_000)] * 3), min_size=1, max_size=8
)  # empty tiles among them


@given(TILES)
def test_statistics_are_the_scores_of_the_table(tiles: list[tuple[int, int, int]]) -> None:
    rows = np.array(tiles, np.float64)
    expected = metrics.pixel_scores(as_table(rows))
    found = {name: float(STATISTICS[name](rows)) for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert list(STATISTICS)[: len(found)] == list(expected)
    assert STATISTIC_COLUMNS.keys() == STATISTICS.keys()


@given(TILES, st.sampled_from(list(STATISTICS)))
def test_a_statistic_scores_many_samples_as_it_scores_each(
    tiles: list[tuple[int, int, int]], name: str
) -> None:
    rows = np.array(tiles, np.float64)
    samples = np.stack([rows, rows[::-1], np.roll(rows, 1, axis=0)])
    samples[1] += 1
    found = STATISTICS[name](samples)
    assert found.shape == (3,)
    np.testing.assert_allclose(found, [STATISTICS[name](sample) for sample in samples])


@given(TILES)
def test_the_interval_lies_between_the_worst_and_the_best_tile(
    tiles: list[tuple[int, int, int]],
) -> None:
    rows = np.array(tiles, np.float64)
    scores = metrics.iou(*rows.T)
    for statistic in (mean_of(metrics.iou), pooled(metrics.iou)):
        found = interval(rows, statistic)
        if len(rows) > 1:
            # The score 1 of an empty tile has no weight in a pooled score.
            assert scores.min() - 1e-9 <= found.low <= found.high <= scores.max() + 1e-9
    # The mean of scores equals the score statistic of the counts.
    one, other = interval(scores, tile_mean), interval(rows, mean_of(metrics.iou))
    assert astuple(one) == pytest.approx(astuple(other), abs=1e-12, nan_ok=True)


def test_intervals_do_not_wait_for_torch_or_scipy() -> None:
    code = (
        "import sys, stages, roofseg.results.intervals; "
        "print({'torch', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
