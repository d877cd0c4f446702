"""Tiles as a model's tiles.csv and patches/tiles.csv list them."""

from __future__ import annotations

from tiny_dataset import CRS

from roofseg.patches import SEEN_COLUMNS
from roofseg.tiles.manifest import TileRecord


def row(tile: str, split: str, sha: str, east: float | None = None) -> dict[str, str]:
    """A tile that a model has seen: its image's hash, and where its patch of 64 px begins."""
    place = ("", "") if east is None else (CRS, f"0.3 0.0 {east} 0.0 -0.3 3350000.0")
    values = ("city", split, tile, sha * 64, "64", *place)
    return dict(zip(SEEN_COLUMNS, values, strict=True))


def tile(name: str, split: str, sha: str, east: float | None = None) -> TileRecord:
    seen = row(name, split, sha, east)
    image = f"{name}.tif"
    return TileRecord(
        *(name, split, image, sha * 64, image, "f" * 64, "", seen["crs"], seen["transform"]),
        *("64", "64"),
    )
