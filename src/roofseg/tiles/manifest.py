"""patches/tiles.csv: which tiles the patches were cut from, with the hash of every file.

The patches are the dataset of record; once they are cut, the tiles may be deleted. Stages that
score whole tiles later depend on this small file instead of the tiles. It identifies the tiles'
files, and says which tiles show ground that a tile of another split shows too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from roofseg.core.files import read_rows, write_rows


@dataclass(frozen=True)
class TileRecord:
    """A tile as it was when its patch was cut.

    ``image`` and ``mask`` are names in the dataset's imgs/ and msks/, with the SHA-256 (64 hex
    digits) of each. ``shared`` names the tiles of other splits that show some of the same ground,
    separated by spaces. ``crs`` and ``transform`` place the tile's patch, as in crops.csv;
    ``height`` and ``width`` are those of the whole tile in pixels.
    """

    tile: str
    split: str
    image: str
    image_sha256: str
    mask: str
    mask_sha256: str
    shared: str
    crs: str
    transform: str
    height: str
    width: str


COLUMNS = [field.name for field in fields(TileRecord)]


def write_manifest(path: Path, tiles: Iterable[TileRecord]) -> None:
    """Write the manifest, one line per tile."""
    write_rows(path, COLUMNS, (asdict(tile).values() for tile in tiles))


def read_manifest(path: Path) -> dict[str, TileRecord]:
    """Read the records, by tile name; UserError if the file is missing or is not a manifest."""
    remake = f"Get it with `dvc pull {path}`, or make it with `dvc repro make_patches`."
    rows = read_rows(path, COLUMNS, remake)
    return {row["tile"]: TileRecord(**row) for row in rows}
