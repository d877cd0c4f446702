"""Compare each attempt with the leader, tile by tile.

An attempt *ties* with the leader if the 95 % paired bootstrap interval of their difference in IoU
contains 0: these tiles cannot tell which of the two is better. `roofseg.results.intervals` has the
statistics and their sources.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.metrics import SCORED_SPLITS
from roofseg.report.attempts import Attempt
from roofseg.results.intervals import CONFIDENCE, STATISTICS, compare

COMPARISON_COLUMNS = [
    "split", "attempt", "leader", "tiles", "difference", "low", "high", "p_value", "smallest_p",
    "tie",
]  # fmt: skip


def compare_with_leader(order: Sequence[Attempt]) -> pd.DataFrame:
    """Compare every attempt with the leader on the same tiles.

    Args:
        order: the attempts, the leader first.

    Returns:
        One row for each attempt on each split that both the attempt and the leader were scored on.
        Columns: split; attempt; leader; tiles (their number); difference (IoU, mean over tiles, of
        the attempt minus the leader); low and high (its 95 % paired bootstrap interval; NaN for a
        single tile); p_value (sign-flip test, two-sided, not corrected for the number of
        comparisons); smallest_p (the smallest p-value that so few tiles allow); tie.

    Raises:
        UserError: an attempt was scored on other tiles than the leader.
    """
    leader, *others = order
    rows = []
    for split in SCORED_SPLITS:
        leader_counts = leader.counts(split)
        for attempt in others:
            counts = attempt.counts(split)
            if counts.empty or leader_counts.empty:
                continue
            if set(counts.index) != set(leader_counts.index):
                raise UserError(
                    f"the {split} tiles that {attempt.name} was scored on are not those of "
                    f"{leader.name}. Run `dvc repro evaluate@{attempt.name} "
                    f"evaluate@{leader.name}` to score both on the same tiles."
                )
            comparison = compare(counts.loc[leader_counts.index], leader_counts, STATISTICS["iou"])
            rows.append(
                {
                    "split": split,
                    "attempt": attempt.name,
                    "leader": leader.name,
                    "tiles": len(leader_counts),
                    "difference": comparison.difference.value,
                    "low": comparison.difference.low,
                    "high": comparison.difference.high,
                    "p_value": comparison.p_value,
                    "smallest_p": comparison.smallest_p,
                    "tie": comparison.tie,
                }
            )
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def interval_and_p_disagree(comparisons: pd.DataFrame) -> pd.Series:
    """Flag the rows whose interval excludes 0 while the p-value is above 0.05."""
    return ~comparisons.tie & (comparisons.p_value > 1 - CONFIDENCE)


def smallest_p_values(comparisons: pd.DataFrame) -> str:
    """Name the smallest p-value on each number of tiles, such as ``0.031 on 6 tiles``.

    Args:
        comparisons: the rows of `compare_with_leader`, at least one.
    """
    smallest = dict(zip(comparisons.tiles, comparisons.smallest_p, strict=True))
    return " or ".join(f"{p:.2g} on {n} tile{'s' if n != 1 else ''}" for n, p in smallest.items())
