"""Leakage between splits: patches of two splits that show the same ground, or the same picture."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform

from roofseg.core.images import UNKNOWN, Image
from roofseg.tiles.grid import Grid
from roofseg.tiles.ground import is_on_earth
from roofseg.tiles.rasters import RASTER_ERRORS

# Two pictures look alike if at most this many of the 64 bits of their perceptual hashes differ.
# Hashes of unrelated pictures differ in about 32 bits, with a standard deviation of 4; those of a
# picture and its recompressed or brightened copy differ in a few.
NEAR = 8

Corners = npt.NDArray[np.float64]  # (N, 4, 2): the x and y of N grids' corners, NaN where unknown


@dataclass(frozen=True)
class Fingerprint:
    """The place of a patch and two hashes of its pixels, enough to compare it with other patches.

    ``exact`` is the SHA-256 of its pixels, 64 hex digits; ``perceptual`` is its `perceptual_hash`.
    """

    tile: str
    split: str
    grid: Grid
    exact: str
    perceptual: int

    @classmethod
    def of(cls, tile: str, split: str, image: Image, grid: Grid, mask: Image) -> Fingerprint:
        """Take the fingerprint of a patch.

        ``image`` is (P, P, 3) uint8 RGB; ``mask`` (P, P) uint8 tells which pixels are `UNKNOWN`.
        """
        exact = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
        unknown = mask == UNKNOWN
        if unknown.any():
            # Unknown pixels are often black, and patches at the edge of a flight would look alike.
            image = image.copy()
            image[unknown] = image[~unknown].mean(axis=0)
        return cls(tile, split, grid, exact, perceptual_hash(image))


def overlaps(fingerprints: Sequence[Fingerprint]) -> list[str]:
    """Describe each pair of patches in two splits that overlap, in one line.

    Georeferenced patches overlap if their outlines share more than half a pixel in both width and
    height. Patches with identical pixels count as overlapping, georeferenced or not.
    """
    splits = [fingerprint.split for fingerprint in fingerprints]
    ground = shared_ground([fingerprint.grid for fingerprint in fingerprints], splits)
    same = set(_same_pixels(fingerprints))
    lines = []
    for pair in sorted(same | ground.keys()):
        names = _names(fingerprints, *pair)
        if pair in same:
            lines.append(f"{names} are the same, pixel by pixel")
        else:
            width, height = ground[pair]
            lines.append(f"{names} share {width:.0f} x {height:.0f} px of ground")
    return lines


def near_duplicates(fingerprints: Sequence[Fingerprint]) -> list[str]:
    """Describe each pair of patches in two splits that look alike but are not the same, in a line.

    This finds copies that were compressed, brightened or resampled, but not copies that were
    rotated or that show only a part of the other patch.
    """
    hashes = np.array([fingerprint.perceptual for fingerprint in fingerprints], np.uint64)
    splits = np.array([fingerprint.split for fingerprint in fingerprints])
    lines = []
    for one in range(len(fingerprints)):
        differing = np.bitwise_count(hashes[one + 1 :] ^ hashes[one])
        near = (differing <= NEAR) & (splits[one + 1 :] != splits[one])
        for offset in np.flatnonzero(near).tolist():
            other = one + 1 + offset
            if fingerprints[one].exact != fingerprints[other].exact:
                lines.append(
                    f"{_names(fingerprints, one, other)} look alike ({differing[offset]} of the 64 "
                    "bits of their perceptual hashes differ)"
                )
    return lines


def perceptual_hash(image: Image) -> int:
    """Compute a hash of 64 bits that changes little when an image is compressed or resized.

    The image, (H, W, 3) uint8 RGB, is reduced to 32 x 32 grey pixels. Each bit tells whether one of
    the 8 x 8 lowest frequencies of their cosine transform is above the median (Zauner 2010,
    "Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2.1).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8]
    bits = np.packbits((low > np.median(low)).ravel())
    return int.from_bytes(bits.tobytes(), "big")


def shared_ground(
    grids: Sequence[Grid], splits: Sequence[str]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Find the pairs of grids in two splits that share ground.

    A spatial index leaves few pairs to compare, so the time grows with the number of grids and not
    with its square.

    Args:
        grids: the grids of tiles or patches
        splits: the split of each grid

    Returns:
        Width and height of the shared ground, in pixels of the first grid, for each pair of indices
        (first < second). Pairs that share half a pixel or less are left out. So are pairs without
        common coordinates: one grid has no georeference, their CRSs differ and one is local (an
        engineering CRS), or the second lies outside the area that the CRS of the first can map.
    """
    shared = {}
    corners = _corners(grids)
    by_crs = _by_crs(grids)
    for crs, members in by_crs.items():
        tree = shapely.STRtree(_bounds(corners[members]))
        for others_crs, others in by_crs.items():
            placed = corners[others]
            if others_crs != crs:
                placed = reprojected(placed, others_crs, crs)
            # Boxes first: they are cheap, and any two outlines that overlap have boxes that do.
            for at, hit in tree.query(_bounds(placed)).T.tolist():
                one, other = members[hit], others[at]
                if one < other and splits[one] != splits[other]:
                    extent = _intersection(grids[one], placed[at])
                    if extent:
                        shared[one, other] = extent
    return shared


def _same_pixels(fingerprints: Sequence[Fingerprint]) -> Iterator[tuple[int, int]]:
    """Find the pairs of indices (first < second) of patches in two splits with equal pixels."""
    by_pixels = defaultdict(list)
    for index, fingerprint in enumerate(fingerprints):
        by_pixels[fingerprint.exact].append(index)
    for copies in by_pixels.values():
        for one, other in combinations(copies, 2):
            if fingerprints[one].split != fingerprints[other].split:
                yield one, other


def _names(fingerprints: Sequence[Fingerprint], one: int, other: int) -> str:
    first, second = fingerprints[one], fingerprints[other]
    return f"{first.tile} ({first.split}) and {second.tile} ({second.split})"


def _by_crs(grids: Sequence[Grid]) -> dict[CRS | None, list[int]]:
    """Group the indices of the georeferenced grids by CRS, however it is written."""
    by_crs: dict[CRS | None, list[int]] = {}
    same: dict[CRS | None, CRS | None] = {}  # cache: comparing two CRSs is slow
    for index, grid in enumerate(grids):
        if grid.transform is None:
            continue
        if grid.crs not in same:
            same[grid.crs] = next((crs for crs in by_crs if crs == grid.crs), grid.crs)
        by_crs.setdefault(same[grid.crs], []).append(index)
    return by_crs


def _corners(grids: Sequence[Grid]) -> Corners:
    """The corners of each grid in the coordinates of its own CRS."""
    corners = np.full((len(grids), 4, 2), np.nan)
    for index, grid in enumerate(grids):
        if grid.transform is not None:
            corners[index] = [grid.transform @ corner for corner in grid.corners]
    return corners


def reprojected(corners: Corners, source: CRS | None, target: CRS | None) -> Corners:
    """Reproject (N, 4, 2) corners to another CRS; those of a grid that it cannot map become NaN."""
    unknown = np.full_like(corners, np.nan)
    if not (is_on_earth(source) and is_on_earth(target)):
        return unknown
    try:
        x, y = transform(source, target, *corners.reshape(-1, 2).T.tolist())
    except RASTER_ERRORS:
        if len(corners) == 1:
            return unknown
        # One point that cannot be mapped fails the whole call.
        return np.concatenate([reprojected(one[None], source, target) for one in corners])
    return np.stack([x, y], axis=-1).reshape(corners.shape)


def _bounds(corners: Corners) -> npt.NDArray[np.object_]:
    """The bounding box of each grid; None, which the index skips, where a corner is unknown."""
    finite = np.isfinite(corners).all(axis=(1, 2))
    low, high = corners.min(axis=1), corners.max(axis=1)
    boxes = np.full(len(corners), None, object)
    boxes[finite] = shapely.box(*low[finite].T, *high[finite].T)
    return boxes


def _intersection(grid: Grid, corners: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Width and height (pixels) of the part of a grid inside a quadrangle; None up to 0.5 px."""
    assert grid.transform is not None
    to_pixels = ~grid.transform
    polygon = np.array([to_pixels @ corner for corner in corners.tolist()], np.float32)
    area, part = cv2.intersectConvexConvex(np.array(grid.corners, np.float32), polygon)
    if area <= 0:  # then the points that cv2 returns are meaningless
        return None
    width, height = np.ptp(part.reshape(-1, 2), axis=0).tolist()
    return (width, height) if min(width, height) > 0.5 else None
