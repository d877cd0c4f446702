"""Compare every two attempts, tile by tile (`roofseg.results.verdicts`)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.metrics import SCORED_SPLITS, iou
from roofseg.report.attempts import Attempt
from roofseg.results.verdicts import VERDICT, compare_pairs

COMPARISON_COLUMNS = ["split", "attempt", "than", "tiles", *VERDICT]


def compare_attempts(order: Sequence[Attempt]) -> pd.DataFrame:
    """Compare every two attempts on the same tiles, the pairs of a split judged together.

    Args:
        order: the attempts, the leader first.

    Returns:
        One row for each pair on each split that both attempts were scored on. Columns: split;
        attempt; than (an attempt before it in ``order``); tiles (their number); and `VERDICT` on
        the IoU, mean over tiles, of ``attempt`` minus that of ``than``.

    Raises:
        UserError: two attempts were scored on different tiles.
    """
    found = []
    for split in SCORED_SPLITS:
        scores = {
            attempt.name: pd.Series(iou(counts.tp, counts.fp, counts.fn), counts.index)
            for attempt in order
            if attempt.opened(split)
            for counts in [attempt.counts(split)]
        }
        first, *others = scores or [""]
        for name in others:
            if set(scores[name].index) != set(scores[first].index):
                raise UserError(
                    f"the {split} tiles that {name} was scored on are not those of {first}. Run "
                    f"`dvc repro evaluate@{name} evaluate@{first}` to score both on the same tiles."
                )
        if others:
            table = pd.DataFrame(scores)
            found.append(compare_pairs(table).assign(split=split, tiles=len(table)))
    pairs = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    return pairs.reindex(columns=COMPARISON_COLUMNS)
