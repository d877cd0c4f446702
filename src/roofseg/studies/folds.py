"""Cross-validation: the fold of each tile, and which tiles each fold's run trains on.

The table of folds, which the stage divide@folds writes, has a row per tile with the columns

- tile, fold (from 1) and group: tiles of one group are in one fold;
- touches: the tiles of other folds that it touches, with / between; ``?`` if it has no
  georeference, so that nobody knows;
- side: that of the squares that are the groups, in metres; empty if the groups are tiles that touch
  each other;
- seed: of the division.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roofseg.core.errors import UserError
from roofseg.core.files import write_rows
from roofseg.core.messages import shortened

COLUMNS = ("tile", "fold", "group", "touches", "side", "seed")
TRAIN, VAL, TEST = "train", "val", "test"
UNPLACED = "?"
FEW_FOLDS = 5
"""With fewer folds most differences are ties (docs/statistics.md has the shares)."""


@dataclass(frozen=True)
class FoldTable:
    """A division of tiles into folds.

    Attributes:
        of_tile: the fold of each tile, from 1.
        touches: the tiles of other folds that each tile touches; None if it has no georeference.
        side: the side in metres of the squares whose tiles are in one fold; None without squares.
        seed: the seed of the division.
    """

    of_tile: Mapping[str, int]
    touches: Mapping[str, Sequence[str] | None]
    side: float | None
    seed: int

    def record(self) -> dict[str, Any]:
        """The division in the record of a run.

        Returns:
            folds (their number) and seed; sha256 of the fold of each tile; side of the squares; and
            the numbers of tiles that touch one of another fold (touching), or have no georeference
            (unplaced).
        """
        rows = "".join(f"{tile},{fold}\n" for tile, fold in sorted(self.of_tile.items()))
        return {
            "folds": max(self.of_tile.values()),
            "seed": self.seed,
            "sha256": hashlib.sha256(rows.encode()).hexdigest(),
            "side": self.side,
            "touching": sum(bool(others) for others in self.touches.values()),
            "unplaced": sum(others is None for others in self.touches.values()),
        }


def remarks(folds: FoldTable) -> Iterator[str]:
    """Remarks on a division for the user, one line each."""
    pairs = [
        f"{tile} and {other}"
        for tile, others in folds.touches.items()
        for other in others or ()
        if tile < other
    ]
    if pairs:
        yield f"tiles of two folds touch, so scores may be too high: {shortened(pairs)}"
    if bare := [tile for tile, others in folds.touches.items() if others is None]:
        yield (
            "no georeference, so nothing tells which tiles are neighbours, and each is a group of "
            f"its own: {shortened(bare)}"
        )
    if max(folds.of_tile.values()) < FEW_FOLDS:
        yield (
            f"fewer than {FEW_FOLDS} folds tell few attempts apart, since intervals are wide "
            "(docs/statistics.md)"
        )


def write_folds(path: Path, folds: FoldTable, groups: Sequence[Sequence[str]]) -> None:
    """Write the table of folds; ``groups`` are the tiles that stay together."""
    group_of = {tile: number for number, group in enumerate(groups, 1) for tile in group}
    side = "" if folds.side is None else f"{folds.side:g}"
    rows = [
        (tile, fold, group_of[tile], _text(folds.touches[tile]), side, folds.seed)
        for tile, fold in sorted(folds.of_tile.items())
    ]
    write_rows(path, COLUMNS, rows)


def _text(others: Sequence[str] | None) -> str:
    return UNPLACED if others is None else "/".join(others)


def read_folds(path: Path, tiles: Collection[str] | None = None) -> FoldTable:
    """Read the table of folds.

    Args:
        path: the table.
        tiles: the tiles that it must have, and no others; None: any.

    Raises:
        UserError: the file is missing, is not a table of folds, or has other tiles.
    """
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
        if tuple(header) != COLUMNS or not rows:
            raise ValueError
        *_, side, seed = rows[0]
        found = FoldTable(
            {tile: int(fold) for tile, fold, *_ in rows},
            {
                row[0]: None if row[3] == UNPLACED else [*filter(None, row[3].split("/"))]
                for row in rows
            },
            float(side) if side else None,
            int(seed),
        )
        if {*found.of_tile.values()} != {*range(1, max(found.of_tile.values()) + 1)}:
            raise ValueError
    except (OSError, ValueError, IndexError, csv.Error):
        raise UserError(
            f"{path}: expected a table with the columns {','.join(COLUMNS)} and a row per tile of "
            "train and val, with folds from 1. `roofseg studies folds` makes it."
        ) from None
    if tiles is not None and (odd := found.of_tile.keys() ^ set(tiles)):
        raise UserError(
            f"{path}: expected the {len(tiles)} tiles of train and val; found {len(rows)}, and "
            f"{shortened(sorted(odd))} only here or only there. `roofseg studies folds` makes it "
            "anew."
        )
    return found


def fold_split(folds: Mapping[str, int], fold: int) -> dict[str, str]:
    """The split of a fold's run: the fold is its test, the next fold its val, the others its train.

    The best epoch is chosen on the next fold (after the last comes the first), since a choice by
    the fold that is scored would raise its scores. Each fold is scored once and chooses once.

    Args:
        folds: the fold of each tile, from 1 to the number of folds, at least 3.
        fold: the fold to score.

    Returns:
        The split of each tile, by name.

    Raises:
        UserError: there is no such fold
    """
    count = max(folds.values())
    if not 1 <= fold <= count:
        raise UserError(f"--fold: found {fold}; expected 1 to {count}, the number of folds.")
    parts = {fold: TEST, fold % count + 1: VAL}
    return {tile: parts.get(number, TRAIN) for tile, number in folds.items()}
