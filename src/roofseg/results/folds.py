"""Compare attempts by the out-of-fold scores of all tiles of a cross-validation.

Each tile is scored by a model that was trained without it. The training sets of two folds share
most of their tiles, so the scores of two folds are not independent, and the ordinary standard error
is too small.

Sources:
    C. Nadeau and Y. Bengio, Inference for the Generalization Error, Machine Learning 52 (3), 2003:
        the corrected resampled t test, section 5.
    R. R. Bouckaert and E. Frank, Evaluating the Replicability of Significance Tests for Comparing
        Learning Algorithms, PAKDD 2004: the same for cross-validation.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.results.intervals import Estimate
from roofseg.results.verdicts import compare_pairs


def corrected_estimate(scores: npt.ArrayLike, folds: npt.ArrayLike) -> Estimate:
    """The mean of out-of-fold scores, with an error that allows for shared training data.

    Let S^2 be the variance of the k fold means. Their mean has the squared error
    (1 / k + n_test / n_train) S^2 instead of S^2 / k (Nadeau & Bengio 2003). In k-fold
    cross-validation n_test / n_train is 1 / (k - 1), so the interval is 1.5 times as wide for five
    folds, beside the k - 1 degrees of freedom. Folds are weighted by their number of tiles.

    What it assumes: the means of two folds correlate by n_test / (n_test + n_train), the share of
    tiles that a fold scores; and fold means are about normal. The correlation is a rule of thumb,
    since no unbiased estimate of the variance exists (Y. Bengio and Y. Grandvalet, JMLR 5, 2004).
    It is conservative where the choice of training tiles matters little for the difference of two
    attempts, for example because both learn nearly the same from any of these training sets; and it
    is too small where the models are unstable. Tiles of one fold may depend on each other.

    Args:
        scores: (tiles,), scores or differences of scores.
        folds: (tiles,), the fold that each tile belongs to, two or more.

    Raises:
        ValueError: fewer than two folds.
    """
    values = pd.Series(np.asarray(scores, np.float64))
    by_fold = values.groupby(np.asarray(folds))
    means, weights = by_fold.mean(), by_fold.size() / len(values)
    count = len(means)
    if count < 2:
        raise ValueError(f"{count} fold; expected two or more")
    value = float(values.mean())
    variance = float((weights * (means - value) ** 2).sum()) * count / (count - 1)
    return Estimate(value, (variance * (1 / count + 1 / (count - 1))) ** 0.5, count - 1)


def compare_pairs_of_folds(scores: pd.DataFrame, folds: pd.Series) -> pd.DataFrame:
    """Compare every two attempts by out-of-fold scores, and judge all pairs together.

    Args:
        scores: out-of-fold scores of tiles in [0, 1], a row per tile, a column per attempt.
        folds: the fold of each tile, with the index of ``scores``.

    Returns:
        The columns of `roofseg.results.verdicts.compare_pairs`.
    """
    of_tile = folds.loc[scores.index].to_numpy()
    return compare_pairs(scores, partial(corrected_estimate, folds=of_tile))


def fold_ranks(scores: pd.DataFrame, folds: pd.Series) -> pd.DataFrame:
    """Rank the attempts in each fold by their mean over its tiles.

    Args:
        scores, folds: as for `compare_pairs_of_folds`.

    Returns:
        The rank of each attempt, 1 is best, a row per fold and a column per attempt. Equal attempts
        share the better rank.
    """
    means = scores.groupby(folds.loc[scores.index].to_numpy()).mean()
    return means.rank(axis=1, method="min", ascending=False).astype(int)
