"""The uncertainty of scores: intervals over tiles by Student's t.

The tiles are a small sample of all ground that a model might see. An interval shows how much a
score would move with other tiles of the same kind. It does not cover the effect of another seed,
since all scores come from one training. docs/statistics.md compares this interval with others by
simulation; `roofseg.results.verdicts` compares attempts.

Sources:
    "Student", The Probable Error of a Mean, Biometrika 6 (1), 1908.
    J. W. Tukey, Bias and Confidence in Not-quite Large Samples (abstract), Annals of Mathematical
        Statistics 29 (2), 1958: Student's t of jackknife pseudo-values, for scores that are not
        means. B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, Chapman & Hall,
        1993, section 11.5, has it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.metrics import building_f1, f1, iou, precision, recall

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""The largest error of equal scores in [0, 1] that comes from rounding."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A score and its interval; ``low`` and ``high`` are NaN if unknown (`half_width`)."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error (NaN if unknown), and the degrees of freedom of the error."""

    value: float
    error: float
    freedom: float

    @property
    def interval(self) -> Interval:
        """The interval at `CONFIDENCE` by Student's t."""
        half = float(half_width(self.error, self.freedom, CONFIDENCE))
        return Interval(self.value, self.value - half, self.value + half)


def half_width(
    error: npt.ArrayLike, freedom: npt.ArrayLike, confidence: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Half the width of intervals by Student's t.

    An error of 0 (up to `ROUNDING`) gives NaN: equal scores on a few tiles, such as a precision of
    1 on each of three, do not show how far other tiles would be off.

    Args:
        error: standard errors of scores in [0, 1] or of their differences; NaN gives NaN.
        freedom: degrees of freedom.
        confidence: in (0, 1).
    """
    from scipy.special import stdtrit  # its import takes a third of a second

    quantile = stdtrit(freedom, (1 + np.asarray(confidence)) / 2)
    errors = np.asarray(error, np.float64)
    return np.asarray(quantile * np.where(errors > ROUNDING, errors, np.nan), np.float64)


@dataclass(frozen=True)
class Statistic:
    """A score of a sample of tiles.

    Attributes:
        score: computes a score, (n,) floats, from k arrays (n,) of numbers of tiles.
        pooled: sum each of the k numbers over tiles and score the sums, instead of averaging the
            scores of the tiles.
    """

    score: Callable[..., Floats]
    pooled: bool = False

    def __call__(self, rows: Floats) -> float:
        """Score a sample of tiles, (n, k) numbers."""
        if self.pooled:
            return float(self.score(*rows.sum(axis=0)))
        return float(self.score(*rows.T).mean())

    def pseudo_values(self, rows: Floats) -> Floats:
        """The contribution of each tile to the score, (n,), by the jackknife.

        For a mean over tiles these are the scores of the tiles. For a pooled score s of n tiles
        they are n s - (n - 1) s', where s' is the score without the tile (Tukey 1958).
        """
        if not self.pooled:
            return self.score(*rows.T)
        without = self.score(*(rows.sum(axis=0) - rows).T)
        return len(rows) * self(rows) - (len(rows) - 1) * without


TILE_MEAN = Statistic(lambda values: values)
"""The mean of one number per tile."""

STATISTICS: dict[str, Statistic] = {
    "iou": Statistic(iou),
    "f1": Statistic(f1),
    "iou_pooled": Statistic(iou, pooled=True),
    "f1_pooled": Statistic(f1, pooled=True),
    "precision": Statistic(lambda tp, fp, fn: precision(tp, fp), pooled=True),
    "recall": Statistic(lambda tp, fp, fn: recall(tp, fn), pooled=True),
    "boundary_iou": TILE_MEAN,
    "boundary_iou_m": TILE_MEAN,
    "building_f1": Statistic(building_f1),
    "building_f1_pooled": Statistic(building_f1, pooled=True),
}
"""The scores of a split by name, as statistics of rows of their `STATISTIC_COLUMNS`."""

STATISTIC_COLUMNS = {
    **{name: ["tp", "fp", "fn"] for name in STATISTICS},
    **{name: [name] for name in ("boundary_iou", "boundary_iou_m")},
    **{name: ["buildings", "found", "claimed"] for name in ("building_f1", "building_f1_pooled")},
}
"""The columns of a table of tiles (`roofseg.evaluation.assessment`) that each statistic takes."""


def estimate(rows: npt.ArrayLike, statistic: Statistic = TILE_MEAN) -> Estimate:
    """Score n tiles; the error is that of the mean of the `Statistic.pseudo_values`.

    The interval of a mean over tiles is that of ``scipy.stats.ttest_1samp``, and the interval of a
    mean of differences that of ``scipy.stats.ttest_rel``; tests compare them.

    Args:
        rows: (n, k) numbers, a row per tile; or (n,) for k = 1.
        statistic: one of `STATISTICS`.
    """
    table = np.asarray(rows, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    tiles, error = len(table), float("nan")
    if tiles > 1:
        error = float(statistic.pseudo_values(table).std(ddof=1)) / tiles**0.5
    return Estimate(statistic(table), error, tiles - 1)


def known_scores(table: pd.DataFrame) -> dict[str, float]:
    """Compute every score of `STATISTICS` whose columns have a value for every tile.

    Args:
        table: a row per tile (`roofseg.evaluation.assessment`).
    """
    return {name: STATISTICS[name](rows) for name, rows in _known_rows(table).items()}


def intervals_of_tiles(table: pd.DataFrame) -> dict[str, Interval]:
    """Compute the scores of `known_scores` with their intervals, which end at 0 and 1."""
    return {
        name: score_interval(estimate(rows, STATISTICS[name]))
        for name, rows in _known_rows(table).items()
    }


def score_interval(score: Estimate) -> Interval:
    """The interval of a score, which cannot be below 0 or above 1."""
    found = score.interval
    return Interval(found.value, *np.clip([found.low, found.high], 0, 1).tolist())


def _known_rows(table: pd.DataFrame) -> dict[str, Floats]:
    """The rows of each statistic whose columns have a value for every tile."""
    complete = set(table.columns[table.notna().all()])
    return {
        name: table[columns].to_numpy(np.float64)
        for name, columns in STATISTIC_COLUMNS.items()
        if complete.issuperset(columns)
    }
