"""Whether a model has learnt from tiles that val or test of a dataset hold.

Such tiles would give scores that say nothing about other tiles.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from roofseg.core.errors import UserError
from roofseg.cutting.leakage import shared_ground
from roofseg.patches import RETRAIN
from roofseg.tiles.grid import Grid
from roofseg.tiles.manifest import TileRecord

NAMED = 5  # the overlapping tiles that an error names
# Splits here that must not share a tile with a split of the model: it learnt from train, and val
# chose its epoch and recipe. To choose by the same val again is no leak.
SEALED_FROM = {"train": ("val", "test"), "val": ("test",)}


@dataclass(frozen=True)
class PlacedTile:
    """A tile of a dataset: its split, the SHA-256 of its image, and the grid that is scored."""

    tile: str
    split: str
    image_sha256: str
    grid: Grid


def check_seen(
    seen: Sequence[Mapping[str, str]], here: Sequence[PlacedTile], subject: str, remedy: str
) -> None:
    """Raise UserError if a model has seen tiles that val or test of this dataset hold.

    Two tiles are the same if their images have the same bytes, or if their georeferenced patches
    share ground.

    Args:
        seen: the rows of the model's tiles.csv (`roofseg.patches.seen_tiles`)
        here: the tiles of the dataset in force
        subject: begins the error
        remedy: ends it
    """
    grids = [_seen_grid(row, subject) for row in seen] + [tile.grid for tile in here]
    sides = ["seen"] * len(seen) + ["here"] * len(here)
    reasons = {
        (one, two - len(seen)): f"share {width:.0f} x {height:.0f} px of ground"
        for (one, two), (width, height) in shared_ground(grids, sides).items()
    }
    by_hash = defaultdict(list)  # a dataset may hold an image twice
    for two, tile in enumerate(here):
        by_hash[tile.image_sha256].append(two)
    for one, row in enumerate(seen):
        for two in by_hash[row["image_sha256"]]:
            reasons[one, two] = "are the same image"
    lines = [
        f"{seen[one]['tile']} ({seen[one]['split']} of {seen[one]['dataset']}) and "
        f"{here[two].tile} ({here[two].split} here) {reason}"
        for (one, two), reason in sorted(reasons.items())
        if here[two].split in SEALED_FROM[seen[one]["split"]]
    ]
    if lines:
        more = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
        raise UserError(
            f"{subject} has seen tiles of val or test, so scores would be too high: "
            f"{'; '.join(lines[:NAMED])}{more}. {remedy}"
        )


def grid_of(tile: TileRecord, patch_size: int) -> Grid:
    """The grid of a tile's patch, by patches/tiles.csv; ``patch_size`` is its side in pixels."""
    return _grid(patch_size, tile.crs, tile.transform)


def _seen_grid(row: Mapping[str, str], subject: str) -> Grid:
    """The grid of a patch in a model's tiles.csv; UserError if the row is not as training wrote it.

    ``subject`` begins the error.
    """
    try:
        grid = _grid(row["patch_size"], row["crs"], row["transform"])
        if grid.width > 0 and row["split"] in SEALED_FROM:
            return grid
    except (ValueError, CRSError):
        pass
    found = ", ".join(f"{key} {row[key]!r}" for key in ("split", "patch_size", "crs", "transform"))
    raise UserError(
        f"{subject} has a tiles.csv that is damaged: tile {row['tile']} has {found}. Restore the "
        f"file. {RETRAIN}"
    )


def _grid(patch_size: str | int, crs: str, transform: str) -> Grid:
    """The grid of a patch, from the text in a table; ValueError or CRSError if it is none."""
    size, numbers = int(patch_size), [float(number) for number in transform.split()]
    if len(numbers) not in (0, 6) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{transform!r} is not six numbers")
    place = Affine(*numbers) if numbers else None
    return Grid(size, size, CRS.from_string(crs) if crs else None, place)
