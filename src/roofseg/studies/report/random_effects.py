"""The uncertainty of a mean over seeds and tiles, where both are samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from roofseg.results.intervals import Estimate


def crossed_estimate(scores: npt.ArrayLike) -> Estimate:
    """The mean of a table of seeds by tiles, with its error for other seeds and other tiles.

    Seeds and tiles are crossed random effects, like readers and cases in a trial where every reader
    judges every case (S. L. Hillis, A comparison of denominator degrees of freedom methods for
    multiple observer ROC analysis, Statistics in Medicine 26 (3), 2007). Let v be the variance of
    the S seed means and w that of the T tile means. Then the variance of the mean is at most
    v / S + w / T. Its degrees of freedom weigh S - 1 and T - 1 by their shares (F. E.
    Satterthwaite, An Approximate Distribution of Estimates of Variance Components, Biometrics
    Bulletin 2 (6), 1946). Two seeds that differ much therefore give a wide interval. A bootstrap of
    so few seeds is too narrow: test_random_effects.py has the error rates of both.

    With a single seed this is `roofseg.results.intervals.estimate`, which does not cover other
    seeds.

    Args:
        scores: (seeds, tiles), scores or differences of scores.

    Returns:
        The mean and its error, which is NaN for a single tile.
    """
    table = np.asarray(scores, np.float64)
    value = float(table.mean())
    if table.shape[1] == 1:
        return Estimate(value, float("nan"), 0)
    effects = [(means, len(means)) for means in (table.mean(1), table.mean(0)) if len(means) > 1]
    shares = np.array([means.var(ddof=1) / size for means, size in effects])
    freedoms = np.array([size - 1 for _, size in effects])
    freedom = shares.sum() ** 2 / (shares**2 / freedoms).sum() if shares.any() else freedoms.sum()
    return Estimate(value, float(np.sqrt(shares.sum())), float(freedom))
