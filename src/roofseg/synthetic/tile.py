"""Generate synthetic aerial tiles with roof masks, so that the pipeline runs without a download.

``scene`` defines the records of a tile, ``layout`` and ``buildings`` make them, and ``render``
draws them. Nothing comes from real imagery, and scores on these tiles say nothing about real towns.
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
from roofseg.core.progress import Progress, silent
from roofseg.synthetic.layout import lay_out
from roofseg.synthetic.render import render
from roofseg.synthetic.scene import GSD

CRS = "EPSG:32614"  # UTM 14N, where Austin lies
WEST, NORTH = 616_500.0, 3_357_000.0  # metres; the north-west corner of the first tile
TILES_PER_ROW = 6  # on the map
SMALLEST = 64  # pixels; the least side of a tile

# Tiles with hardly a roof in their centre, so that make_patches cuts another window. In
# data/sample/split.csv three of them are in train, one (16) is in val and one (34) in test.
OPEN_CENTRES = {4: "car park", 9: "field", 16: "park", 20: "pond", 34: "park"}


@dataclass(frozen=True)
class Tile:
    """One tile."""

    image: Image  # (S, S, 3) uint8 RGB
    mask: Image  # (S, S) uint8: 255 on roofs, below trees too, and 0 elsewhere
    transform: Affine  # maps (column, row) to UTM metres, 0.3 m per pixel, north up


def tile_name(index: int) -> str:
    """The name of tile ``index``: sample01, sample02, ..."""
    return f"sample{index:02d}"


def generate_tile(seed: int, index: int, size: int) -> Tile:
    """Generate one tile; the same arguments give the same tile.

    Args:
        seed: the seed of the dataset, 0 or more.
        index: the number of the tile, from 1. Tiles lie in rows of six with gaps as wide as a tile
            between them, so no two overlap.
        size: side in pixels, at least 64.

    Raises:
        UserError: an argument is out of range.
    """
    if size < SMALLEST:
        raise UserError(f"size: {size} pixels; expected at least {SMALLEST}. Ask for larger tiles.")
    if index < 1:
        raise UserError(f"tiles: tile {index}; expected a number of 1 or more. Count tiles from 1.")
    if seed < 0:
        raise UserError(f"seed: {seed}; expected 0 or more. Choose another seed.")
    rng = np.random.default_rng([seed, index])
    scene = lay_out(rng, size, index, OPEN_CENTRES.get(index))
    image, mask = render(scene, size, rng)
    row, column = divmod(index - 1, TILES_PER_ROW)
    step = 2 * size * GSD
    transform = Affine(GSD, 0.0, WEST + column * step, 0.0, -GSD, NORTH - row * step)
    return Tile(image, mask, transform)


def write_sample(
    imgs: Path, msks: Path, *, tiles: int, size: int, seed: int, progress: Progress = silent
) -> None:
    """Write tiles 1..``tiles`` as GeoTIFF into ``imgs`` and their masks into ``msks``.

    Images are uint8 RGB, masks uint8 with one band of 0 and 255; `generate_tile` explains ``size``
    and ``seed``. ``progress`` shows how many are written. Both folders appear whole or not at all,
    and replace existing ones.

    Raises:
        UserError: an argument is out of range.
    """
    if tiles < 1:
        raise UserError(f"tiles: {tiles}; expected at least 1. Ask for one tile or more.")
    with atomic_write(imgs) as images, atomic_write(msks) as masks:
        images.mkdir()
        masks.mkdir()
        for index in progress(range(1, tiles + 1), "Drawing tiles"):
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
