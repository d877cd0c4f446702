"""Leakage between splits: patches of two splits that show the same ground, or the same picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from roofseg.core.images import Image
from roofseg.tiles.rasters import RASTER_ERRORS, Grid

# Perceptual hashes have 64 bits. Those of unrelated pictures differ in about 32 of them, with a
# standard deviation of 4; those of a picture and its recompressed or brightened copy in a few.
NEAR = 8


@dataclass(frozen=True)
class Print:
    """What is kept of a patch to compare it with others: a few bytes, not its pixels.

    ``size`` is the patch's side in pixels, ``exact`` a hash of all pixels and ``perceptual`` one of
    what it looks like; ``crs`` and ``transform`` say where it lies, None where that is unknown.
    """

    tile: str
    split: str
    size: int
    exact: str
    perceptual: int
    crs: CRS | None
    transform: Affine | None

    @classmethod
    def of(
        cls, tile: str, split: str, image: Image, crs: CRS | None, transform: Affine | None
    ) -> Print:
        """Of a patch's (P, P, 3) uint8 RGB image."""
        exact = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
        return cls(tile, split, len(image), exact, perceptual_hash(image), crs, transform)

    @property
    def grid(self) -> Grid:
        return Grid(self.size, self.size, self.crs, self.transform)


def overlaps(prints: Sequence[Print]) -> list[str]:
    """What two splits share, as one line for each pair of patches.

    Georeferenced patches overlap if their outlines do, by more than half a pixel both ways; any two
    patches are the same if all of their pixels are.
    """
    found = []
    for one, other in _pairs(prints):
        if one.exact == other.exact:
            found.append(f"{_names(one, other)} are the same, pixel by pixel")
        elif shared := shared_ground(one.grid, other.grid):
            width, height = shared
            found.append(f"{_names(one, other)} share {width:.0f} x {height:.0f} px of ground")
    return found


def near_duplicates(prints: Sequence[Print]) -> list[str]:
    """Pairs of patches in two splits that look alike without being the same, as one line each.

    A copy that was compressed, brightened or resampled is found; one that was turned, or shows only
    a part of the other, is not.
    """
    return [
        f"{_names(one, other)} look alike ({bits} of the 64 bits of their perceptual hashes differ)"
        for one, other in _pairs(prints)
        if (bits := (one.perceptual ^ other.perceptual).bit_count()) <= NEAR
        and one.exact != other.exact
    ]


def perceptual_hash(image: Image) -> int:
    """64 bits of what an (H, W, 3) uint8 RGB image looks like from afar.

    The 8 x 8 lowest frequencies of a cosine transform of 32 x 32 grey pixels, each above or below
    their median (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions",
    section 3.2.1).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8]
    bits = np.packbits((low > np.median(low)).ravel())
    return int.from_bytes(bits.tobytes(), "big")


def _pairs(prints: Sequence[Print]) -> Iterator[tuple[Print, Print]]:
    return ((one, other) for one, other in combinations(prints, 2) if one.split != other.split)


def _names(one: Print, other: Print) -> str:
    return f"{one.tile} ({one.split}) and {other.tile} ({other.split})"


def shared_ground(one: Grid, other: Grid) -> tuple[float, float] | None:
    """Width and height of the ground that two grids share, in pixels of ``one``; None if none.

    None, too, where they have no coordinates in common: without georeferencing, in a system of
    coordinates of their own (an engineering CRS), or where one lies outside what the CRS of the
    other can map.
    """
    if one.transform is None or other.transform is None:
        return None
    corners = [other.transform @ corner for corner in _outline(other)]
    if one.crs != other.crs:
        if not all(crs and (crs.is_projected or crs.is_geographic) for crs in (one.crs, other.crs)):
            return None
        try:
            x, y = transform(other.crs, one.crs, *zip(*corners, strict=True))
        except RASTER_ERRORS:
            return None
        corners = list(zip(x, y, strict=True))
    polygon = np.array([~one.transform @ corner for corner in corners], np.float32)
    if not np.isfinite(polygon).all():
        return None
    area, shared = cv2.intersectConvexConvex(np.array(_outline(one), np.float32), polygon)
    if area <= 0:  # what it then gives for their outline is no outline
        return None
    width, height = np.ptp(shared.reshape(-1, 2), axis=0).tolist()
    return (width, height) if min(width, height) > 0.5 else None


def _outline(grid: Grid) -> list[tuple[int, int]]:
    """A grid's corners as (column, row) in pixels."""
    return [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
