"""How sure the leaderboard is: intervals of scores, and who ties with the leader.

The *leader* is the attempt with the best val IoU (mean over tiles), on test too: test chooses
nothing. A *tie* is an attempt whose 95 % paired bootstrap interval of the difference in IoU to the
leader contains 0: these tiles cannot tell which of the two is better. `results.intervals` has the
statistics and their sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.metrics import SPLITS
from roofseg.report.attempts import Entry
from roofseg.results.disclaimers import SEALED
from roofseg.results.intervals import CONFIDENCE, STATISTICS, compare, interval


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """The best val IoU first; equals stay in the given order."""
    return sorted(entries, key=lambda entry: -_val_iou(entry))


def _val_iou(entry: Entry) -> float:
    value = entry.scores["val"]["iou"]
    return float("-inf") if value is None else value


def floor_iou(baselines: Mapping[str, Any]) -> float:
    """The best val IoU of `roofseg.baselines.baselines`, which every attempt must beat."""
    return max(float(baseline["val"]["iou"]) for baseline in baselines.values())


def score_columns(entry: Entry, split: str, score: str) -> dict[str, float]:
    """A score with its interval, as columns SPLIT_SCORE, SPLIT_SCORE_low and SPLIT_SCORE_high.

    All are NaN where the split is sealed, and the interval's ends where it has a single tile.

    Args:
        entry: the attempt.
        split: as tiles.csv has it.
        score: a key of `roofseg.results.intervals.STATISTICS`.
    """
    counts, name = entry.counts(split), f"{split}_{score}"
    if counts.empty:
        return dict.fromkeys([name, f"{name}_low", f"{name}_high"], float("nan"))
    found = interval(counts, STATISTICS[score])
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def compare_with_leader(entries: Sequence[Entry]) -> pd.DataFrame:
    """Compare every attempt with the leader, tile by tile.

    Args:
        entries: the leader first (`ranked`).

    Returns:
        One row per split and attempt that both were scored on, with columns split, attempt, leader;
        difference (IoU, mean over tiles, of the attempt minus the leader), low and high (its 95 %
        paired bootstrap interval; NaN for a single tile); p_value (by exact sign flips, two-sided,
        not corrected for the number of comparisons) and floor, below which no p-value can be on so
        few tiles; tie.

    Raises:
        UserError: an attempt was scored on other tiles than the leader.
    """
    leader, *others = entries
    rows = []
    for split in SPLITS:
        theirs = leader.counts(split)
        for entry in others:
            ours = entry.counts(split)
            if ours.empty or theirs.empty:
                continue
            if set(ours.index) != set(theirs.index):
                raise UserError(
                    f"the {split} tiles that {entry.attempt} was scored on are not those of "
                    f"{leader.attempt}. Run `dvc repro evaluate@{entry.attempt} "
                    f"evaluate@{leader.attempt}` to score both on the same."
                )
            found = compare(ours.loc[theirs.index], theirs, STATISTICS["iou"])
            rows.append(
                {
                    "split": split,
                    "attempt": entry.attempt,
                    "leader": leader.attempt,
                    "difference": found.difference.value,
                    "low": found.difference.low,
                    "high": found.difference.high,
                    "p_value": found.p_value,
                    "floor": found.floor,
                    "tie": found.tie,
                }
            )
    columns = ["split", "attempt", "leader", "difference", "low", "high", "p_value", "floor", "tie"]
    return pd.DataFrame(rows, columns=columns)


def torn(comparisons: pd.DataFrame) -> pd.Series:
    """Of which rows the interval says that there is a difference, and the p-value does not."""
    return ~comparisons.tie & (comparisons.p_value > 1 - CONFIDENCE)


def standings(entries: Sequence[Entry], comparisons: pd.DataFrame, split: str) -> list[str]:
    """How each attempt stands to the leader on a split.

    Args:
        entries: the leader first.
        comparisons: those of `compare_with_leader`.
        split: ``val`` or ``test``.

    Returns:
        For each: ``leader``, ``tie``, ``behind`` or ``ahead`` (which it can be on test alone);
        ``sealed`` where it was not scored on the split, and nothing where the leader was not.
    """
    here = comparisons[comparisons.split == split].set_index("attempt")

    def standing(entry: Entry) -> str:
        if split not in entry.scores:
            return SEALED
        if entry is entries[0]:
            return "leader"
        if entry.attempt not in here.index:
            return ""
        found = here.loc[entry.attempt]
        if found.tie:
            return "tie"
        return "behind" if found.difference < 0 else "ahead"

    return [standing(entry) for entry in entries]
