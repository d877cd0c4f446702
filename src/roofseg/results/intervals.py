"""How sure a score is: bootstrap intervals over tiles, and paired comparisons of two attempts.

The tiles are the sample: a handful of them stand for all ground that a model might see. An interval
says how much a score would move with other tiles of the same kind. It says nothing of another seed,
since all scores come from one training. With few tiles percentile intervals are too narrow: by a
factor of about sqrt((n - 1) / n) z / t, which is 0.7 for six tiles (Hesterberg 2015).

A *statistic* makes a score of a sample of tiles. It takes rows of shape (..., n, k), k numbers for
each of n tiles, and gives (...) scores; the dots are resamples, all of them at once.

Sources:
    B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, Chapman & Hall, 1993: the
        percentile interval, section 13.3; permutation tests, chapter 15.
    T. C. Hesterberg, What Teachers Should Know About the Bootstrap: Resampling in the Undergraduate
        Statistics Curriculum, The American Statistician 69 (4), 2015.
    R. A. Fisher, The Design of Experiments, Oliver & Boyd, 1935: the exact test of paired samples
        by all signs of their differences, section 21.
    B. Phipson and G. K. Smyth, Permutation P-values Should Never Be Zero, Statistical Applications
        in Genetics and Molecular Biology 9 (1), 2010: the ones in a p-value from random exchanges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.metrics import building_f1, f1, iou, precision, recall

CONFIDENCE = 0.95
DRAWS = 10_000
SEED = 0  # so attempts with the same number of tiles get the same resamples

EXACT_TILES = 16
"""`compare` tries every exchange of up to so many tiles (32,768 of them), beyond it random ones."""

BATCH = 1 << 21  # tiles drawn at a time: bounds the memory, however many tiles there are
ROUNDING = 1e-12  # differences of scores that are closer to each other than this are equal

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Statistic = Callable[[Floats], Floats]


def tile_mean(rows: Floats) -> Floats:
    """The mean over tiles of their one number: (..., n, 1) to (...)."""
    return rows[..., 0].mean(axis=-1)


def mean_of(score: Callable[..., Floats]) -> Statistic:
    """The statistic that scores each tile by its k numbers, and takes the mean over tiles."""
    return lambda rows: score(*np.moveaxis(rows, -1, 0)).mean(axis=-1)


def pooled(score: Callable[..., Floats]) -> Statistic:
    """The statistic that sums each of the k numbers over the tiles, and scores the sums."""
    return lambda rows: score(*np.moveaxis(rows.sum(axis=-2), -1, 0))


STATISTICS: dict[str, Statistic] = {
    "iou": mean_of(iou),
    "f1": mean_of(f1),
    "iou_pooled": pooled(iou),
    "f1_pooled": pooled(f1),
    "precision": pooled(lambda tp, fp, fn: precision(tp, fp)),
    "recall": pooled(lambda tp, fp, fn: recall(tp, fn)),
    "boundary_iou": tile_mean,
    "boundary_iou_m": tile_mean,
    "building_f1": mean_of(building_f1),
    "building_f1_pooled": pooled(building_f1),
}
"""The scores of `roofseg.evaluation.assessment.summarise`, as statistics of rows of `COLUMNS`."""

COLUMNS = {
    **{name: ["tp", "fp", "fn"] for name in STATISTICS},
    **{name: [name] for name in ("boundary_iou", "boundary_iou_m")},
    **{name: ["buildings", "found", "claimed"] for name in ("building_f1", "building_f1_pooled")},
}
"""The columns of a table of tiles (`evaluation.assessment`) that each of `STATISTICS` takes."""


@dataclass(frozen=True)
class Interval:
    """A score and its interval; ``low`` and ``high`` are NaN for a single tile."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The score of one attempt minus that of another on the same tiles.

    ``p_value`` is two-sided and not corrected for the number of comparisons; with n tiles it cannot
    be less than ``floor``.
    """

    difference: Interval
    p_value: float
    floor: float

    @property
    def tie(self) -> bool:
        """Whether the interval holds 0, or there is none (a single tile)."""
        return not (self.difference.low > 0 or self.difference.high < 0)


def interval(
    rows: npt.ArrayLike,
    statistic: Statistic = tile_mean,
    *,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Interval:
    """The score of n tiles with its percentile bootstrap interval (Efron & Tibshirani, 13.3).

    Takes n of the n tiles with replacement, ``draws`` times, and scores each such sample. The
    interval lies between the (1 - confidence) / 2 quantiles from either end. Agrees with
    ``scipy.stats.bootstrap(method="percentile")``; a test holds it to that.

    Args:
        rows: (n, k) numbers, or (n,) for k = 1: a row per tile.
        statistic: makes a score of a sample; see `STATISTICS`.
        confidence: in (0, 1).
        draws: how many resamples.
        seed: of NumPy's default generator.
    """
    table = _table(rows)
    return _bootstrap(len(table), lambda tiles: statistic(table[tiles]), confidence, draws, seed)


def of_tiles(table: pd.DataFrame, names: Iterable[str] = tuple(STATISTICS)) -> dict[str, Interval]:
    """The scores of a table of tiles (`evaluation.assessment`) with their intervals, by name.

    Args:
        table: a row per tile.
        names: keys of `STATISTICS`; those whose columns some tile lacks are left out.
    """
    known = measured(table)
    return {
        name: interval(table[COLUMNS[name]], STATISTICS[name]) for name in names if name in known
    }


def measured(table: pd.DataFrame) -> list[str]:
    """Those of `STATISTICS` whose columns every tile of a table has."""
    known = set(table.columns[table.notna().all()])
    return [name for name in STATISTICS if known.issuperset(COLUMNS[name])]


def compare(
    one: npt.ArrayLike,
    other: npt.ArrayLike,
    statistic: Statistic = tile_mean,
    *,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Comparison:
    """The score of ``one`` minus that of ``other``, with its paired interval and a p-value.

    The interval is as for `interval`; a resample takes the same tiles of both.

    The p-value is that of the permutation test of paired samples (Fisher 1935): were there nothing
    between the two, either result of a tile might be that of either. It is the share of all 2^n
    ways to exchange the two results, tile by tile, whose difference is at least as large as the one
    found, either way; for a mean over tiles, an exchange is a change of sign of the tile's
    difference. Exchanging all tiles gives the same difference the other way, so the floor is
    2 / 2^n: 0.031 for six tiles. Beyond `EXACT_TILES` it is (b + 1) / (draws + 1), for b of
    ``draws`` random exchanges (Phipson & Smyth 2010), and the floor 1 / (draws + 1).

    Agrees with ``scipy.stats.permutation_test(permutation_type="samples")``.

    Args:
        one, other: as ``rows`` of `interval`, with the same tile in the same row.
        statistic, confidence, draws, seed: as for `interval`.
    """
    pair = np.stack([_table(one), _table(other)])  # 2, n, k
    tiles = pair.shape[1]

    def difference(picked: Integers, exchanged: Any = 0) -> Floats:
        return statistic(pair[exchanged, picked]) - statistic(pair[1 - exchanged, picked])

    found = _bootstrap(tiles, difference, confidence, draws, seed)
    everything = np.arange(tiles)
    if tiles <= EXACT_TILES:
        # The last tile is never exchanged: that would give each difference once more, reversed.
        exchanges = np.arange(2 ** (tiles - 1))[:, None] >> everything & 1
        counted = 0
    else:
        exchanges = np.random.default_rng(seed).integers(0, 2, (draws, tiles))
        counted = 1
    at_least = sum(
        int((np.abs(difference(everything, part)) >= abs(found.value) - ROUNDING).sum())
        for part in np.array_split(exchanges, -(-exchanges.size // BATCH))
    )
    whole = len(exchanges) + counted
    return Comparison(found, (at_least + counted) / whole, 1 / whole)


def _table(rows: npt.ArrayLike) -> Floats:
    table = np.asarray(rows, np.float64)
    return table[:, None] if table.ndim == 1 else table


def _bootstrap(
    tiles: int, score: Callable[[Integers], Floats], confidence: float, draws: int, seed: int
) -> Interval:
    """``score`` takes the numbers of the tiles in some samples, (..., n), and gives (...)."""
    value = float(score(np.arange(tiles)))
    if tiles == 1:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    at_once = max(1, BATCH // tiles)
    scores = np.concatenate(
        [
            score(rng.integers(0, tiles, (min(at_once, draws - start), tiles)))
            for start in range(0, draws, at_once)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
