"""Cross-validation: the fold of each tile, and which tiles each fold's run trains on.

The table of folds has the columns tile, fold (from 1) and group: tiles of one group are neighbours
and therefore in one fold. The stage divide@folds writes it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import write_rows

COLUMNS = ("tile", "fold", "group")
TRAIN, VAL, TEST = "train", "val", "test"


def write_folds(path: Path, folds: Mapping[str, int], groups: Sequence[Sequence[str]]) -> None:
    """Write the table of folds: the fold of each tile, from 1, and its group."""
    group_of = {tile: number for number, group in enumerate(groups, 1) for tile in group}
    write_rows(path, COLUMNS, ((tile, folds[tile], group_of[tile]) for tile in sorted(folds)))


def read_folds(path: Path) -> dict[str, int]:
    """Read the fold of each tile; UserError if the file is missing or is not a table of folds."""
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
        if tuple(header) != COLUMNS or not rows:
            raise ValueError
        return {tile: int(fold) for tile, fold, _ in rows}
    except (OSError, ValueError, csv.Error):
        raise UserError(
            f"{path}: expected a table with the columns {','.join(COLUMNS)} and a row per tile of "
            "train and val. `roofseg studies folds` makes it."
        ) from None


def fold_split(folds: Mapping[str, int], fold: int) -> dict[str, str]:
    """The split of a fold's run: the fold is its test, the next fold its val, the others its train.

    The best epoch is chosen on the next fold (after the last comes the first), since a choice by
    the fold that is scored would raise its scores. Each fold is scored once and chooses once.

    Args:
        folds: the fold of each tile, from 1 to the number of folds, at least 3.
        fold: the fold to score.

    Returns:
        The split of each tile, by name.
    """
    choosing = fold % max(folds.values()) + 1
    parts = {fold: TEST, choosing: VAL}
    return {tile: parts.get(number, TRAIN) for tile, number in folds.items()}
