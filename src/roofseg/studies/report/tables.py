"""Statistics over the runs of a study: means and spread, ranks over seeds, contrasts of presets.

All runs are scored on the same val tiles, and all attempts of a study are trained from the same
seeds. Therefore two attempts are compared seed by seed and tile by tile.

Sources:
    M. G. Kendall, A New Measure of Rank Correlation, Biometrika 30 (1/2), 1938: tau.
    X. Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021: why
        to sample both seeds and data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.results.intervals import estimate, score_interval
from roofseg.results.verdicts import AHEAD, BEHIND, ESTIMATE, columns, judge
from roofseg.studies.report.random_effects import crossed_estimate

PAIRS = ["one", "other", "seeds", "sd", "ahead", "noise"]
RUN = ["label", "tiles", "augmentation", "seed"]
"""The columns that identify a run of a study; ``label`` is the attempt's name in plots."""

Floats = npt.NDArray[np.float64]


def per_run(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per run, in the given order: `RUN`, best_epoch, failure, mean val_iou and val_f1."""
    groups = scores.groupby([*RUN, "best_epoch", "failure"], sort=False)
    return groups.agg(val_iou=("iou", "mean"), val_f1=("f1", "mean")).reset_index()


def spread(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The val IoU of groups of runs, over the seeds in each group.

    Args:
        scores: rows of `records.read_records`.
        by: the columns of `RUN` that define the groups.

    Returns:
        One row per group, in the given order, with the columns ``by``, then: seeds (their number),
        val_iou (mean over seeds of the mean over tiles), sd (over seeds; NaN for one), min, max,
        and low and high, the 95 % interval over seeds and tiles (`crossed_estimate`).
    """
    groups = [by_tile(group) for _, group in scores.groupby(list(by), sort=False)]
    means = scores.groupby([*by, "seed"], sort=False).iou.mean().groupby(list(by), sort=False)
    summary = means.agg(seeds="size", val_iou="mean", sd="std", min="min", max="max")
    ends = [score_interval(crossed_estimate(group)) for group in groups]
    return summary.reset_index().assign(
        low=[interval.low for interval in ends], high=[interval.high for interval in ends]
    )


def gains(scores: pd.DataFrame) -> pd.DataFrame:
    """The gain in IoU of more training tiles over the fewest, paired by seed and val tile.

    Returns:
        One row per label and number of tiles above the smallest, with columns label, than (the
        smallest number), tiles, and `roofseg.results.verdicts.VERDICT` on the difference in IoU,
        for other seeds and tiles (`crossed_estimate`).
    """
    rows = []
    for label, own in scores.groupby("label", sort=False):
        than, *others = sorted(own.tiles.unique())
        fewest = by_tile(own[own.tiles == than])
        for tiles in others:
            gain = crossed_estimate(by_tile(own[own.tiles == tiles]) - fewest)
            rows.append({"label": label, "than": than, "tiles": tiles, **columns(gain)})
    return judge(pd.DataFrame(rows, columns=["label", "than", "tiles", *ESTIMATE]))


def by_tile(scores: pd.DataFrame) -> Floats:
    """The IoU of the runs of one group, (seeds, val tiles), both sorted."""
    return scores.pivot(index="seed", columns="tile", values="iou").to_numpy(np.float64)


def by_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """The mean val IoU as a table of seeds by labels; the labels are in the given order."""
    means = scores.groupby(["seed", "label"], sort=False).iou.mean().unstack()
    return means[scores.label.unique()]


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Count how often each attempt came first, second, ... among the attempts of one seed.

    Returns:
        Counts, a row per label, a column per rank (1 is best). Equal attempts share the better
        rank.
    """
    table = by_seed(scores)
    places = table.rank(axis=1, method="min", ascending=False).astype(int)
    counted = {rank: (places == rank).sum() for rank in range(1, table.shape[1] + 1)}
    return pd.DataFrame(counted)


def agreement(scores: pd.DataFrame) -> float:
    """How similarly seeds rank the attempts: mean of Kendall's tau-b over pairs of seeds, [-1, 1].

    1: every seed gives the same ranking; about 0: the ranking depends on the seed. Seeds in which
    all attempts are equal have no ranking and are left out. NaN if fewer than two seeds remain.
    """
    from scipy.stats import kendalltau  # takes seconds

    ordered = [row for row in by_seed(scores).to_numpy() if np.ptp(row)]
    taus = [kendalltau(one, other).statistic for one, other in combinations(ordered, 2)]
    return float(np.mean(taus)) if taus else float("nan")


def pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare every two attempts over seeds, the better one first.

    Returns:
        One row per pair, with columns: one, other, seeds (their number); sd (over seeds, of the val
        IoU of ``one`` minus that of ``other`` from the same seed); ahead (number of seeds in which
        ``one`` was better); noise, the share of seed noise in the gap of a single seed: sd^2 /
        mean(difference^2), at most 1 (at 0 every seed shows the same gap; at 1 the gap of one seed
        does not predict that of another); and `roofseg.results.verdicts.VERDICT` on the mean
        difference, by Student's t over seeds, for other seeds and these tiles.
    """
    table = by_seed(scores)
    order = table.mean().sort_values(ascending=False, kind="stable").index
    rows = []
    for one, other in combinations(order, 2):
        gaps = (table[one] - table[other]).to_numpy()
        square = (gaps**2).mean()
        rows.append(
            {
                "one": one,
                "other": other,
                "seeds": len(gaps),
                "sd": gaps.std(ddof=1),
                "ahead": int((gaps > 0).sum()),
                "noise": min(1.0, gaps.var(ddof=1) / square) if square else 1.0,
                **columns(estimate(gaps)),
            }
        )
    return judge(pd.DataFrame(rows, columns=[*PAIRS, *ESTIMATE]))


def contrasts(
    scores: pd.DataFrame,
    *,
    frozen: Sequence[str],
    unfrozen: str,
    mild: Sequence[str],
    strong: Sequence[str],
) -> pd.DataFrame:
    """Test whether frozen encoders prefer a milder augmentation than an unfrozen one does.

    The *preference* of an attempt is its mean IoU under the ``mild`` presets minus its mean IoU
    under the ``strong`` presets. The hypothesis: it is larger for a frozen encoder.

    Args:
        scores: rows of `records.read_records`.
        frozen, unfrozen: names of attempts.
        mild, strong: names of presets.

    Returns:
        One row per attempt with its preference (``than`` is empty), then one per frozen attempt
        with its preference minus that of the unfrozen one, paired by seed and tile. Columns: label,
        than, `roofseg.results.verdicts.VERDICT` for other seeds and tiles (`crossed_estimate`), and
        answer: ``yes`` (the verdict is ahead), ``no`` (behind) or ``open`` (a tie).
    """
    labels = dict(zip(scores.attempt, scores.label, strict=True))

    def mean_over(attempt: str, presets: Sequence[str]) -> Floats:
        """The IoU of an attempt, averaged over presets: (seeds, tiles)."""
        own = scores[scores.attempt == attempt]
        return np.mean([by_tile(own[own.augmentation == preset]) for preset in presets], axis=0)

    preference = {
        attempt: mean_over(attempt, mild) - mean_over(attempt, strong)
        for attempt in [*frozen, unfrozen]
    }
    rows = [
        {"label": labels[name], "than": "", **columns(crossed_estimate(table))}
        for name, table in preference.items()
    ]
    for name in frozen:
        difference = crossed_estimate(preference[name] - preference[unfrozen])
        rows.append({"label": labels[name], "than": labels[unfrozen], **columns(difference)})
    judged = judge(pd.DataFrame(rows))
    return judged.assign(answer=judged.verdict.map({AHEAD: "yes", BEHIND: "no"}).fillna("open"))
