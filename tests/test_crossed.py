"""Intervals over seeds and tiles, against all resamples of tables small enough for that."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from roofseg.crossed import crossed_interval
from roofseg.intervals import interval

scores = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(2, 8)),
    elements=st.floats(0, 1).map(lambda value: round(value, 6)),
)


@pytest.mark.parametrize("table", [[[0.1, 0.5], [0.2, 0.9]], [[0.3, 0.8, 0.1], [0.7, 0.2, 0.6]]])
def test_it_is_that_of_all_resamples(table: list[list[float]]) -> None:
    values = np.array(table)
    seeds, tiles = map(range, values.shape)
    means = [
        values[np.ix_(rows, columns)].mean()
        for rows in product(seeds, repeat=len(seeds))
        for columns in product(tiles, repeat=len(tiles))
    ]
    low, high = np.quantile(means, [0.1, 0.9])
    found = crossed_interval(values, confidence=0.8, draws=100_000)
    assert found.value == pytest.approx(values.mean())
    # A quantile of random resamples may be the next mean to that of all of them.
    nearest = np.unique(np.round(means, 9))
    for end, exact in ((found.low, low), (found.high, high)):
        assert abs(end - exact) <= np.diff(nearest).max() + 1e-9


def test_the_variance_is_that_of_the_pigeonhole_bootstrap() -> None:
    """Rows, columns and what is left of both vary each by itself (Owen 2007, section 3)."""
    table = np.random.default_rng(5).normal(0.5, 0.1, (6, 9))
    seeds, tiles = table.shape

    def covariance(size: int) -> np.ndarray:
        return (np.eye(size) - 1 / size) / size**2

    rows, columns = covariance(seeds), covariance(tiles)
    variance = (
        table.mean(1) @ rows @ table.mean(1)
        + table.mean(0) @ columns @ table.mean(0)
        + np.trace(rows @ table @ columns @ table.T)
    )
    found = crossed_interval(table, confidence=0.6827, draws=100_000)
    assert (found.high - found.low) / 2 == pytest.approx(np.sqrt(variance), rel=0.06)  # near normal


def test_of_a_single_seed_it_is_the_interval_over_tiles() -> None:
    row = np.random.default_rng(3).random(12)
    crossed, plain = crossed_interval(row[None], draws=50_000), interval(row, draws=50_000)
    assert crossed.value == pytest.approx(plain.value)
    assert (crossed.low, crossed.high) == pytest.approx((plain.low, plain.high), abs=0.01)


@given(scores)
def test_it_holds_the_mean_and_stays_within_the_table(table: np.ndarray) -> None:
    found = crossed_interval(table, draws=200)
    assert table.min() - 1e-9 <= found.low <= found.high <= table.max() + 1e-9
    assert found.value == pytest.approx(table.mean())


@given(scores)
def test_seeds_and_tiles_have_no_order_but_for_chance(table: np.ndarray) -> None:
    """The same numbers with signs changed give the same interval, mirrored."""
    one, other = crossed_interval(table, draws=100), crossed_interval(-table, draws=100)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_more_seeds_that_agree_make_it_no_narrower_than_the_tiles() -> None:
    row = np.random.default_rng(8).random(6)
    alone, repeated = crossed_interval(row[None]), crossed_interval(np.tile(row, (10, 1)))
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_single_tile_has_none() -> None:
    found = crossed_interval([[0.5], [0.7]])
    assert found.value == pytest.approx(0.6)
    assert np.isnan([found.low, found.high]).all()
