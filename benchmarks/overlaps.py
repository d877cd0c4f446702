"""Overlaps and look-alikes of patches (`roofseg.cutting.leakage`) against comparing every pair."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from benchmarks.table import Row, alternate, faster
from roofseg.cutting.leakage import NEAR, Fingerprint, near_duplicates, overlaps
from roofseg.tiles.grid import Grid
from roofseg.tiles.rasters import RASTER_ERRORS

MANY, FEW = 10_000, 200  # tiles; comparing every pair of MANY takes hours
SECONDS = 10  # for MANY
ROUNDS = 3
SIZE = 1024  # pixels, of tiles that touch their neighbours
GSD = 0.3


def rows() -> list[Row]:
    many, few = mosaic(MANY), mosaic(FEW)

    def compare(patches: list[Fingerprint]) -> None:
        overlaps(patches)
        near_duplicates(patches)

    def compare_every_pair() -> None:
        every_pair_overlaps([patch.grid for patch in few], [patch.split for patch in few])
        every_pair_near(few)

    (seconds,) = alternate(lambda: compare(many), rounds=ROUNDS)
    median = statistics.median(seconds)
    return [
        Row(
            f"overlaps and look-alikes of {MANY:,} patches, in two UTM zones",
            "",
            f"under {SECONDS} s",
            f"{median:.3g} s",
            "",
            "",
            median < SECONDS,
        ),
        faster(
            f"the same of {FEW}",
            "comparing every pair",
            *alternate(lambda: compare(few), compare_every_pair, rounds=ROUNDS, warm_up=0),
            target=None,
        ),
    ]


def mosaic(tiles: int) -> list[Fingerprint]:
    """A square of touching tiles, one half in UTM 14 and one in UTM 15; splits alternate."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(tiles)))
    zones = CRS.from_epsg(32614), CRS.from_epsg(32615)
    found = []
    for index in range(tiles):
        row, column = divmod(index, side)
        place = Affine(GSD, 0, 600_000, 0, -GSD, 3_350_000) @ Affine.translation(
            column * SIZE, row * SIZE
        )
        found.append(
            Fingerprint(
                tile=str(index),
                split=("train", "val", "test")[index % 3],
                grid=Grid(SIZE, SIZE, zones[2 * row >= side], place),
                exact=str(index),
                perceptual=int(rng.integers(2**63)),
            )
        )
    return found


def every_pair_overlaps(
    grids: Sequence[Grid], splits: Sequence[str]
) -> dict[tuple[int, int], tuple[float, float]]:
    """The same as `roofseg.cutting.leakage.shared_ground`, pair by pair."""
    shared = {}
    for one, other in combinations(range(len(grids)), 2):
        extent = splits[one] != splits[other] and pair_shares(grids[one], grids[other])
        if extent:
            shared[one, other] = extent
    return shared


def pair_shares(one: Grid, other: Grid) -> tuple[float, float] | None:
    """Width and height of the ground that two grids share, in pixels of ``one``."""
    if one.transform is None or other.transform is None:
        return None
    corners = [other.transform @ corner for corner in outline(other)]
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
    area, part = cv2.intersectConvexConvex(np.array(outline(one), np.float32), polygon)
    if area <= 0:
        return None
    width, height = np.ptp(part.reshape(-1, 2), axis=0).tolist()
    return (width, height) if min(width, height) > 0.5 else None


def outline(grid: Grid) -> list[tuple[int, int]]:
    return [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]


def every_pair_near(fingerprints: Sequence[Fingerprint]) -> list[tuple[str, str, int]]:
    """The pairs of `roofseg.cutting.leakage.near_duplicates`, with the number of bits."""
    return [
        (one.tile, other.tile, bits)
        for one, other in combinations(fingerprints, 2)
        if one.split != other.split
        and (bits := (one.perceptual ^ other.perceptual).bit_count()) <= NEAR
        and one.exact != other.exact
    ]
