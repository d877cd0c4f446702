"""Which of two attempts is better: one verdict per pair, by Student's t and Holm's correction.

The score of one attempt minus that of another is ``ahead`` (above 0), ``behind`` (below 0), or a
``tie``: on these tiles it may be chance. A single tile gives no verdict. All differences of a table
are judged together, so that the probability of any false ``ahead`` or ``behind`` among them is at
most 5 % (of normal differences; docs/statistics.md has others). Differences of attempts are those
of all pairs, not only of pairs with the leader: the leader was chosen on the same tiles, so each
attempt had its chance to lead. `compare_with_best` is for many runs of one attempt.

Sources:
    S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
        Statistics 6 (2), 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from roofseg.results.intervals import CONFIDENCE, Estimate, Floats, estimate, half_width

LEADER, AHEAD, BEHIND, TIE, NO_VERDICT = "leader", "ahead", "behind", "tie", ""
DECIDED = (AHEAD, BEHIND)
"""The verdicts that say that a difference is not chance."""

IN_WORDS = (
    "**tie**: on these tiles the difference may be chance. **behind**, **ahead**: it is not, at a "
    "level of about 5 % for all pairs together (paired t test, Holm's correction)."
)
"""The meaning of the verdicts, for readers of tables."""

ESTIMATE = ["difference", "error", "freedom"]
"""The columns of a difference to judge, see `columns`."""

VERDICT = ["difference", "low", "high", "p_value", "verdict"]
"""The columns of a judged difference, see `judge`."""


def columns(difference: Estimate) -> dict[str, float]:
    """The columns `ESTIMATE` of a row of a table to judge."""
    values = (difference.value, difference.error, difference.freedom)
    return dict(zip(ESTIMATE, values, strict=True))


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """Judge all differences of a table together.

    Args:
        table: a row per difference, with the columns `ESTIMATE` and any others.

    Returns:
        The table with `VERDICT` in place of `ESTIMATE`. ``p_value`` is two-sided and adjusted by
        Holm's correction; the verdict is a tie if it is above 1 - `CONFIDENCE`. ``low`` and
        ``high`` are the ends of the interval at the level of Holm's step, which contains 0 exactly
        where the verdict is a tie; each such interval has a confidence of `CONFIDENCE` or more on
        its own. The ends are NaN if all tiles have the same difference (`half_width`). If the
        error is unknown, p_value is NaN too and the verdict is `NO_VERDICT`.
    """
    from scipy.special import stdtr  # its import takes a third of a second

    value, error, freedom = (table[name].to_numpy(np.float64) for name in ESTIMATE)
    with np.errstate(divide="ignore", invalid="ignore"):  # an error of 0
        ratio = -np.abs(value / error)
    p_values = 2 * stdtr(freedom, ratio)
    unknown = np.isnan(error)
    p_values[unknown | (value == 0)] = 1
    adjusted, levels = _holm(p_values)
    adjusted[unknown] = np.nan
    half = half_width(error, freedom, 1 - levels)
    signs = np.where(value > 0, AHEAD, BEHIND)
    verdict = np.where(adjusted <= 1 - CONFIDENCE, signs, TIE)
    verdict[unknown] = NO_VERDICT
    judged = zip(VERDICT, (value, value - half, value + half, adjusted, verdict), strict=True)
    return table.drop(columns=ESTIMATE).assign(**dict(judged))


def _holm(p_values: Floats) -> tuple[Floats, Floats]:
    """Holm's correction.

    Returns:
        The adjusted p-values, and the level at which each hypothesis was tested: the i-th smallest
        of m p-values is tested at (1 - `CONFIDENCE`) / (m - i + 1). After the first that is not
        rejected there are no further tests, so the others get its level.
    """
    order = np.argsort(p_values, kind="stable")
    left = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * left), 1)
    rejected = int((adjusted <= 1 - CONFIDENCE).sum())
    levels = (1 - CONFIDENCE) / np.maximum(left, len(left) - rejected)
    back = np.argsort(order, kind="stable")
    return adjusted[back], levels[back]


def compare_pairs(
    scores: pd.DataFrame, estimate: Callable[[Floats], Estimate] = estimate
) -> pd.DataFrame:
    """Compare every two attempts on the same tiles, and judge all pairs together.

    Args:
        scores: scores of tiles in [0, 1], a row per tile, a column per attempt.
        estimate: makes the mean and its error from one difference per tile.

    Returns:
        A row per pair with the columns attempt, than and `VERDICT`: the mean over tiles of the
        score of ``attempt`` minus that of ``than``, which comes before it in ``scores``. Scores are
        in [0, 1], so intervals end at -1 and 1.
    """
    return _compare(scores, combinations(scores, 2), estimate)


def compare_with_best(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare each run with the best one, and judge these pairs together.

    For many runs, of which the question is which may be as good as the best. Their pairs grow with
    the square of their number, so `compare_pairs` would call nearly all a tie. In the simulations
    of docs/statistics.md each of 24 equally good runs is called behind in 1 to 3 % of the tables on
    average, and in up to 15 % if it fails on one tile. That any of them is called behind is more
    likely: the verdicts of a table do not hold together, as those of `compare_pairs` do.

    Args:
        scores: as for `compare_pairs`, the column with the highest mean first.

    Returns:
        The rows of `compare_pairs` whose ``than`` is the first column; the correction and the
        intervals are those for these rows alone.
    """
    best, *others = scores
    return _compare(scores, ((best, other) for other in others), estimate)


def _compare(
    scores: pd.DataFrame,
    pairs: Iterable[tuple[Hashable, Hashable]],
    estimate: Callable[[Floats], Estimate],
) -> pd.DataFrame:
    """Judge these pairs of columns; a pair is named ``than``, ``attempt``."""
    by_attempt = {name: column.to_numpy(np.float64) for name, column in scores.items()}
    rows = [
        {"attempt": one, "than": other, **columns(estimate(by_attempt[one] - by_attempt[other]))}
        for other, one in pairs
    ]
    judged = judge(pd.DataFrame(rows, columns=["attempt", "than", *ESTIMATE]))
    return judged.assign(low=judged.low.clip(-1), high=judged.high.clip(upper=1))
