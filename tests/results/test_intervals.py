from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roofseg import metrics
from roofseg.results.intervals import (
    STATISTIC_COLUMNS,
    STATISTICS,
    estimate,
    intervals_of_tiles,
    score_interval,
)

ONE = np.array([0.671452, 0.821280, 0.760562, 0.782459, 0.781673, 0.762731])


def counts(tiles: int, seed: int) -> npt.NDArray[np.float64]:
    """Draw tp, fp and fn of some tiles with very different numbers of building pixels."""
    rng = np.random.default_rng(seed)
    return (rng.lognormal(6, 1.5, (tiles, 1)) * rng.random((tiles, 3))).round()


def as_table(rows: npt.NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["tp", "fp", "fn"])


@pytest.mark.parametrize("tiles", [2, 6, 30])
def test_the_interval_of_a_mean_is_scipys(tiles: int) -> None:
    values = np.random.default_rng(tiles).random(tiles)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = estimate(values).interval
    assert (found.low, found.value, found.high) == pytest.approx((low, values.mean(), high))


@pytest.mark.parametrize("name", ["iou_pooled", "f1_pooled", "precision", "recall"])
def test_pooled_scores_are_those_of_the_jackknife(name: str) -> None:
    rows, statistic = counts(7, seed=3), STATISTICS[name]
    without = np.array([statistic(np.delete(rows, tile, axis=0)) for tile in range(7)])
    # Efron & Tibshirani 1993, equation 11.5
    error = np.sqrt(6 / 7 * ((without - without.mean()) ** 2).sum())
    found = estimate(rows, statistic)
    assert (found.value, found.error, found.freedom) == pytest.approx((statistic(rows), error, 6))
    half = stats.t.ppf(0.975, 6) * error
    assert found.interval.high - found.value == pytest.approx(half)


def test_the_mean_of_scores_equals_the_score_of_counts() -> None:
    rows = counts(6, seed=5)
    assert estimate(rows, STATISTICS["iou"]) == estimate(metrics.iou(*rows.T))


def test_one_tile_has_no_interval() -> None:
    found = estimate([0.7])
    assert (found.value, found.freedom) == (0.7, 0)
    assert np.isnan([found.error, found.interval.low, found.interval.high]).all()


def test_intervals_of_scores_end_at_0_and_1() -> None:
    found = intervals_of_tiles(as_table(np.array([[99.0, 0, 1], [5, 0, 95]])))
    assert (found["iou"].low, found["iou"].high) == (0, 1)
    assert estimate([0.99, 0.05]).interval.high > 1


def test_equal_scores_have_no_interval() -> None:
    table = as_table(np.array([[90.0, 0, 10], [70, 0, 30], [80, 0, 20]]))
    precision = intervals_of_tiles(table)["precision"]
    assert precision.value == 1
    assert np.isnan([precision.low, precision.high]).all()
    almost = estimate([0.1 + 0.2, 0.3, 0.3])  # equal but for rounding
    assert almost.error > 0
    assert np.isnan(almost.interval.low)


def test_a_score_needs_its_columns_for_every_tile() -> None:
    table = as_table(counts(6, seed=4)).assign(boundary_iou=ONE, boundary_iou_m=[None, *ONE[1:]])
    found = intervals_of_tiles(table)
    assert list(found) == [
        "iou", "f1", "iou_pooled", "f1_pooled", "precision", "recall", "boundary_iou",
    ]  # fmt: skip
    assert found["boundary_iou"] == score_interval(estimate(ONE))


TILES = st.lists(
    st.tuples(*[st.integers(0, 50_000)] * 3), min_size=1, max_size=8
)  # empty tiles among them


@given(TILES)
def test_statistics_are_the_scores_of_the_table(tiles: list[tuple[int, int, int]]) -> None:
    rows = np.array(tiles, np.float64)
    expected = metrics.pixel_scores(as_table(rows))
    found = {name: STATISTICS[name](rows) for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert list(STATISTICS)[: len(found)] == list(expected)
    assert STATISTIC_COLUMNS.keys() == STATISTICS.keys()


@given(TILES)
def test_intervals_contain_their_score(tiles: list[tuple[int, int, int]]) -> None:
    for found in intervals_of_tiles(as_table(np.array(tiles, np.float64))).values():
        if len(tiles) > 1:
            inside = 0 <= found.low <= found.value <= found.high <= 1
            assert inside or np.isnan([found.low, found.high]).all()


def test_intervals_do_not_wait_for_torch_or_scipy() -> None:
    code = (
        "import sys, stages, roofseg.results.intervals; "
        "print({'torch', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
