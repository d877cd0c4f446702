"""Synthetic aerial tiles with roof masks: the dataset that the pipeline runs on out of the box.

``scene`` defines the records of a tile, ``buildings`` and ``layout`` place things on it, and
``render`` draws it. Nothing comes from real imagery, and scores on these tiles say nothing about
real towns. The tiles exist so that the whole pipeline can run and be tested without a download.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write
from roofseg.core.images import Image
from roofseg.synthetic.layout import lay_out
from roofseg.synthetic.render import render
from roofseg.synthetic.scene import GSD

__all__ = ["GSD", "OPEN_CENTRES", "Tile", "generate_tile", "tile_name", "write_sample"]

CRS = "EPSG:32614"  # UTM 14N, where Austin lies
WEST, NORTH = 616_500.0, 3_357_000.0  # metres; the north-west corner of the first tile
COLUMNS = 6
SMALLEST = 64

# Tiles with hardly a roof in their centre, so that the window has to slide. In the split of
# data/sample/split.csv three are in train, one is in val (16) and one in test (34).
OPEN_CENTRES = {4: "car park", 9: "field", 16: "park", 20: "pond", 34: "park"}


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) uint8, 255 on roofs and 0 elsewhere; what hangs over a roof does not count.
        transform: from (column, row) to UTM metres, 0.3 m per pixel, north up.
    """

    image: Image
    mask: Image
    transform: Affine


def tile_name(index: int) -> str:
    """Name of tile ``index``: sample01, sample02, ..."""
    return f"sample{index:02d}"


def generate_tile(seed: int, index: int, size: int) -> Tile:
    """Generate one tile; the same arguments give the same tile.

    Args:
        seed: of the dataset, 0 or more.
        index: number of the tile, counted from 1. Tiles stand in rows of six, each with a gap of
            its own width to the next, so no two overlap.
        size: side in pixels, at least 64.

    Raises:
        UserError: an argument is out of range.
    """
    if size < SMALLEST:
        raise UserError(f"size: {size} pixels; expected at least {SMALLEST}. Ask for larger tiles.")
    if index < 1:
        raise UserError(f"tiles: tile {index}; expected a number from 1 on. Count tiles from 1.")
    if seed < 0:
        raise UserError(f"seed: {seed}; expected 0 or more. Choose another seed.")
    rng = np.random.default_rng([seed, index])
    scene = lay_out(rng, size, index, OPEN_CENTRES.get(index))
    image, mask = render(scene, size, rng)
    row, column = divmod(index - 1, COLUMNS)
    step = 2 * size * GSD
    transform = Affine(GSD, 0.0, WEST + column * step, 0.0, -GSD, NORTH - row * step)
    return Tile(image, mask, transform)


def write_sample(imgs: Path, msks: Path, *, tiles: int, size: int, seed: int) -> None:
    """Write tiles 1..``tiles`` as GeoTIFF into ``imgs`` and their masks into ``msks``.

    Both folders appear whole or not at all; what they held before is replaced.

    Args:
        imgs: folder for NAME.tif, uint8 RGB.
        msks: folder for NAME.tif, uint8, one band of 0 and 255.
        tiles: how many, at least 1.
        size: side of a tile in pixels.
        seed: of the dataset.

    Raises:
        UserError: an argument is out of range.
    """
    if tiles < 1:
        raise UserError(f"tiles: {tiles}; expected at least 1. Ask for one tile or more.")
    with atomic_write(imgs) as images, atomic_write(msks) as masks:
        images.mkdir()
        masks.mkdir()
        for index in range(1, tiles + 1):
            tile = generate_tile(seed, index, size)
            name = f"{tile_name(index)}.tif"
            _write_raster(images / name, np.moveaxis(tile.image, 2, 0), tile.transform)
            _write_raster(masks / name, tile.mask[None], tile.transform)


def _write_raster(path: Path, bands: npt.NDArray[np.uint8], transform: Affine) -> None:
    """Write (bands, H, W) uint8 as a compressed, tiled GeoTIFF."""
    count, height, width = bands.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=count,
        height=height,
        width=width,
        crs=CRS,
        transform=transform,
        photometric="RGB" if count == 3 else "MINISBLACK",
        interleave="pixel",
        compress="deflate",
        predictor=2 if count == 3 else 1,
        zlevel=6,
        tiled=True,
        blockxsize=256,
        blockysize=256,
    ) as file:
        file.write(bands)
