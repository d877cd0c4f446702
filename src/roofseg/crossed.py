"""How sure a mean over seeds and tiles is, where both are samples: other tiles, and other seeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from roofseg.intervals import CONFIDENCE, DRAWS, SEED, Interval


def crossed_interval(
    scores: npt.ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Interval:
    """The mean of a table of seeds by tiles, with its "pigeonhole" bootstrap interval.

    Every resample takes as many seeds as there are, and as many tiles, with replacement, and the
    mean of what stands where they cross (A. B. Owen, The pigeonhole bootstrap, Annals of Applied
    Statistics 1 (2), 2007, which shows that it errs on the wide side). The interval lies between
    the (1 - confidence) / 2 quantiles from either end. With a single seed it is the interval over
    tiles; of the seeds it then knows nothing. With two or three it knows little.

    Args:
        scores: (seeds, tiles), scores or differences of scores.
        confidence: in (0, 1).
        draws: how many resamples.
        seed: of NumPy's default generator.

    Returns:
        The mean and its interval; the ends are NaN for a single tile.
    """
    table = np.asarray(scores, np.float64)
    value = float(table.mean())
    if table.shape[1] == 1:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    seeds, tiles = (_shares(rng, size, draws) for size in table.shape)
    means = np.einsum("ds,st,dt->d", seeds, table, tiles, optimize=True)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _shares(rng: np.random.Generator, size: int, draws: int) -> npt.NDArray[np.float64]:
    """(draws, size): how often each of ``size`` is in a resample of them, as a share of it."""
    return rng.multinomial(size, [1 / size] * size, size=draws) / size
