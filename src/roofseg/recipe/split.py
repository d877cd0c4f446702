"""Read the tables of a dataset: split.csv (tile to split) and nudges.csv (windows set by hand)."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from roofseg.core.errors import UserError

SPLITS = ("train", "val", "test")


def read_split(folder: Path) -> dict[str, str]:
    """Read ``split.csv`` of the dataset in ``folder``: the split of each tile, in the file's order.

    Raises UserError if the file is missing or malformed, lists a tile twice or in two splits, names
    a split other than train, val and test, or leaves one of them empty.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected a dataset with imgs/, msks/, split.csv and "
            "nudges.csv. The parameter `dataset` names it."
        )
    path = folder / "split.csv"
    splits: dict[str, str] = {}
    for line, row in _read_table(path, ("tile", "split")):
        name, split = row["tile"], row["split"]
        if split not in SPLITS:
            raise UserError(
                f"{path}, line {line}: tile {name} is in the split {split!r}; expected one of "
                f"{', '.join(SPLITS)}."
            )
        if name in splits:
            found = "twice" if splits[name] == split else f"in {splits[name]} and in {split}"
            raise UserError(
                f"{path}, line {line}: tile {name} is listed {found}; a tile belongs to one split. "
                "Remove one of the lines."
            )
        splits[name] = split
    for split in SPLITS:
        if split not in splits.values():
            raise UserError(
                f"{path}: no tile is in the split {split}; each of {', '.join(SPLITS)} needs at "
                f"least one. Add a line `TILE,{split}`."
            )
    return splits


def read_nudges(folder: Path) -> dict[str, tuple[int, int]]:
    """Read ``nudges.csv`` of the dataset in ``folder``: the windows set by hand.

    Maps a tile to the row and column (pixels, from 0) of its window's top-left pixel. Raises
    UserError if the file is missing or malformed or lists a tile twice.
    """
    path = folder / "nudges.csv"
    nudges: dict[str, tuple[int, int]] = {}
    for line, row in _read_table(path, ("tile", "row", "col")):
        name = row["tile"]
        if not (row["row"].isdecimal() and row["col"].isdecimal()):
            raise UserError(
                f"{path}, line {line}: tile {name} has row {row['row']!r} and col {row['col']!r}; "
                "expected two whole numbers, the top-left pixel of the window counted from 0."
            )
        if name in nudges:
            raise UserError(f"{path}, line {line}: tile {name} is listed twice. Remove one line.")
        nudges[name] = (int(row["row"]), int(row["col"]))
    return nudges


def _read_table(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file that has ``columns`` as (line number, row) pairs, values stripped."""
    header = ",".join(columns)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; expected a table with the columns {header}. Make it with "
            f"`printf '{header}\\n' > {shlex.quote(str(path))}`, then add a line for each tile "
            "to list."
        )
    rows = []
    try:
        # utf-8-sig: spreadsheets write a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path}: its first line lacks {', '.join(missing)}; expected `{header}`."
                )
            for row in reader:
                values = {name: (row[name] or "").strip() for name in columns}
                if not all(values.values()):
                    raise UserError(
                        f"{path}, line {reader.line_num}: a value is missing; expected `{header}`."
                    )
                rows.append((reader.line_num, values))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a CSV file in UTF-8 ({error}). Save it as CSV in UTF-8."
        ) from None
    return rows
