"""tiles.csv beside the patches: the tiles that they were cut from, known by their bytes.

Patches are the dataset of record; once they are cut, the tiles may go. What wants whole tiles later
depends on this small file in their place: it says which files those are, and which of them show
ground of another split.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import write_text


@dataclass(frozen=True)
class Listed:
    """A tile as it was when its patch was cut.

    ``image`` and ``mask`` are names in the dataset's imgs/ and msks/, with the SHA-256 (64 hex
    digits) of each. ``shared`` names the tiles of other splits that show some of its ground, with
    spaces between.
    """

    tile: str
    split: str
    image: str
    image_sha256: str
    mask: str
    mask_sha256: str
    shared: str


COLUMNS = tuple(field.name for field in fields(Listed))


def write_listing(path: Path, tiles: Iterable[Listed]) -> None:
    """Write the listing, a line per tile."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(asdict(tile).values() for tile in tiles)
    write_text(path, text.getvalue())


def read_listing(path: Path) -> dict[str, Listed]:
    """The listed tiles by name. Raises UserError where there is no listing."""
    remake = f"Get it with `dvc pull {path}`, or make it with `dvc repro make_patches`."
    if not path.is_file():
        raise UserError(f"{path}: no such file. {remake}")
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (csv.Error, UnicodeDecodeError):
        rows = []
    if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise UserError(f"{path}: expected a table with the columns {','.join(COLUMNS)}. {remake}")
    return {row[0]: Listed(*row) for row in rows[1:]}
