"""The uncertainty of scores: bootstrap intervals over tiles, and paired comparisons of attempts.

The tiles are a small sample of all ground that a model might see. An interval shows how much a
score would move with other tiles of the same kind. It does not cover the effect of another seed,
since all scores come from one training. With few tiles percentile intervals are too narrow: by a
factor of about sqrt((n - 1) / n) z / t, which is 0.7 for six tiles (Hesterberg 2015).

A *statistic* computes a score from a sample of tiles. It takes an array (..., n, k) with k numbers
for each of n tiles, and returns scores of shape (...); the leading axes are resamples, which are
scored all at once.

Sources:
    B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, Chapman & Hall, 1993: the
        percentile interval, section 13.3; permutation tests, chapter 15.
    T. C. Hesterberg, What Teachers Should Know About the Bootstrap: Resampling in the Undergraduate
        Statistics Curriculum, The American Statistician 69 (4), 2015.
    R. A. Fisher, The Design of Experiments, Oliver & Boyd, 1935: the exact test of paired samples
        by all signs of their differences, section 21.
    B. Phipson and G. K. Smyth, Permutation P-values Should Never Be Zero, Statistical Applications
        in Genetics and Molecular Biology 9 (1), 2010: why 1 is added to both counts in a p-value
        from random exchanges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.metrics import building_f1, f1, iou, precision, recall

CONFIDENCE = 0.95
DRAWS = 10_000
SEED = 0  # fixed, so attempts with the same number of tiles get the same resamples

EXACT_TILES = 16
"""Up to this many tiles `compare` tries every exchange (32,768 at most), beyond it random ones."""

BATCH = 1 << 21  # the number of tiles drawn at a time, which bounds the memory
ROUNDING = 1e-12  # two differences of scores count as equal if they differ by less than this

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Statistic = Callable[[Floats], Floats]


def tile_mean(rows: Floats) -> Floats:
    """The statistic that averages one number per tile: (..., n, 1) to (...)."""
    return rows[..., 0].mean(axis=-1)


def mean_of(score: Callable[..., Floats]) -> Statistic:
    """Make the statistic that scores each tile from its k numbers and averages over tiles."""
    return lambda rows: score(*np.moveaxis(rows, -1, 0)).mean(axis=-1)


def pooled(score: Callable[..., Floats]) -> Statistic:
    """Make the statistic that sums each of the k numbers over tiles and scores the sums."""
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
"""The scores of a split by name, as statistics of rows of their `STATISTIC_COLUMNS`."""

STATISTIC_COLUMNS = {
    **{name: ["tp", "fp", "fn"] for name in STATISTICS},
    **{name: [name] for name in ("boundary_iou", "boundary_iou_m")},
    **{name: ["buildings", "found", "claimed"] for name in ("building_f1", "building_f1_pooled")},
}
"""The columns of a table of tiles (`roofseg.evaluation.assessment`) that each statistic takes."""


@dataclass(frozen=True)
class Interval:
    """A score and its interval; ``low`` and ``high`` are NaN for a single tile."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Comparison:
    """The score of one attempt minus that of another on the same tiles.

    ``p_value`` is two-sided and not corrected for the number of comparisons; ``smallest_p`` is the
    smallest p-value that so few tiles allow.
    """

    difference: Interval
    p_value: float
    smallest_p: float

    @property
    def tie(self) -> bool:
        """Whether the interval contains 0, or is unknown (a single tile)."""
        return not (self.difference.low > 0 or self.difference.high < 0)


def interval(rows: npt.ArrayLike, statistic: Statistic = tile_mean) -> Interval:
    """Score n tiles, with the percentile bootstrap interval (Efron & Tibshirani, 13.3).

    Each of `DRAWS` resamples has n of the n tiles, drawn with replacement. The interval cuts off a
    share of (1 - `CONFIDENCE`) / 2 of their scores at each end. A test compares it with
    ``scipy.stats.bootstrap(method="percentile")``.

    Args:
        rows: (n, k) numbers, a row per tile; or (n,) for k = 1.
        statistic: computes a score from a sample of tiles, such as one of `STATISTICS`.
    """
    table = _table(rows)
    return _bootstrap(len(table), lambda tiles: statistic(table[tiles]))


def known_scores(table: pd.DataFrame) -> dict[str, float]:
    """Compute every score of `STATISTICS` whose columns have a value for every tile.

    Args:
        table: a row per tile (`roofseg.evaluation.assessment`).
    """
    return {name: float(STATISTICS[name](rows)) for name, rows in _known_rows(table).items()}


def intervals_of_tiles(table: pd.DataFrame) -> dict[str, Interval]:
    """Compute the scores of `known_scores` with their intervals."""
    return {name: interval(rows, STATISTICS[name]) for name, rows in _known_rows(table).items()}


def _known_rows(table: pd.DataFrame) -> dict[str, Floats]:
    """The rows of each statistic whose columns have a value for every tile."""
    complete = set(table.columns[table.notna().all()])
    return {
        name: table[columns].to_numpy(np.float64)
        for name, columns in STATISTIC_COLUMNS.items()
        if complete.issuperset(columns)
    }


def compare(
    one: npt.ArrayLike, other: npt.ArrayLike, statistic: Statistic = tile_mean
) -> Comparison:
    """Score ``one`` minus ``other``, with the paired bootstrap interval and a p-value.

    The interval is computed as in `interval`; each resample has the same tiles of both attempts.

    The p-value is that of the paired permutation test (Fisher 1935). If the two attempts were
    equally good, their results on a tile could be exchanged. The p-value is the share of all 2^n
    exchanges, tile by tile, that give a difference at least as large in size as the observed one;
    for a mean over tiles, an exchange flips the sign of the tile's difference. Exchanging all tiles
    gives the same difference with the other sign, so the smallest p-value is 2 / 2^n: 0.031 for six
    tiles. Beyond `EXACT_TILES` the p-value is (b + 1) / (`DRAWS` + 1), where b of `DRAWS` random
    exchanges reach the observed difference (Phipson & Smyth 2010), and its minimum is
    1 / (`DRAWS` + 1).

    A test compares the p-value with ``scipy.stats.permutation_test(permutation_type="samples")``.

    Args:
        one, other: the rows of two attempts as for `interval`, with the same tile in the same row.
        statistic: as for `interval`.
    """
    pair = np.stack([_table(one), _table(other)])  # 2, n, k
    tiles = pair.shape[1]

    def difference(picked: Integers, exchanged: Any = 0) -> Floats:
        return statistic(pair[exchanged, picked]) - statistic(pair[1 - exchanged, picked])

    observed = _bootstrap(tiles, difference)
    all_tiles = np.arange(tiles)
    if tiles <= EXACT_TILES:
        # The last tile is never exchanged: that would only repeat each difference, reversed.
        exchanges = np.arange(2 ** (tiles - 1))[:, None] >> all_tiles & 1
        added = 0
    else:
        exchanges = np.random.default_rng(SEED).integers(0, 2, (DRAWS, tiles))
        added = 1  # Phipson & Smyth 2010
    as_large = sum(
        int((np.abs(difference(all_tiles, part)) >= abs(observed.value) - ROUNDING).sum())
        for part in np.array_split(exchanges, -(-exchanges.size // BATCH))
    )
    total = len(exchanges) + added
    return Comparison(observed, (as_large + added) / total, 1 / total)


def _table(rows: npt.ArrayLike) -> Floats:
    table = np.asarray(rows, np.float64)
    return table[:, None] if table.ndim == 1 else table


def _bootstrap(tiles: int, score: Callable[[Integers], Floats]) -> Interval:
    """Bootstrap ``score``, which maps samples, (..., n) indices of tiles, to scores, (...)."""
    value = float(score(np.arange(tiles)))
    if tiles == 1:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(SEED)
    at_once = max(1, BATCH // tiles)
    scores = np.concatenate(
        [
            score(rng.integers(0, tiles, (min(at_once, DRAWS - start), tiles)))
            for start in range(0, DRAWS, at_once)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
