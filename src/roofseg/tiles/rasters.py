"""A dataset of labelled tiles: which files it has, which split each tile is in, and their pixels.

A dataset is a folder with ``imgs/`` and ``msks/`` (any raster that GDAL reads, georeferenced or
not; image and mask of a tile share their stem) and two small tables, ``split.csv`` (tile,split) and
``nudges.csv`` (tile,row,col). Everything that can be wrong with one is a UserError that names the
file.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # what a few calls let through has no public name
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.core.images import Image

# What lies beside rasters and is none: statistics, overviews, world files, notes.
WORLD_FILES = (".wld", ".tfw", ".tifw", ".tiffw", ".jgw", ".jpgw", ".jpegw", ".pgw", ".pngw")
SIDECARS = {
    ".xml",
    ".aux",
    ".rrd",
    ".ovr",
    ".msk",
    ".prj",
    ".hdr",
    ".txt",
    ".md",
    ".csv",
    ".json",
    *WORLD_FILES,
}
# GDAL's own default is a share of the machine's memory; a row of blocks is all we reread.
GDAL_CACHE_MB = 64
MASK_STRIP_ROWS = 256
# What comes of a file that GDAL cannot read; the last two of a damaged header's texts and sizes.
RASTER_ERRORS = (RasterioError, CPLE_BaseError, CRSError, UnicodeDecodeError, MemoryError)
# Formats round their georeferencing; a shift by a tenth of a pixel is no rounding.
MAX_SHIFT_PX = 0.1


@dataclass(frozen=True)
class TilePair:
    """A tile in a split: its name (the files' stem), split, and the paths of image and mask."""

    name: str
    split: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Grid:
    """A tile's pixel grid.

    ``height`` and ``width`` in pixels; ``transform`` maps (column, row) to the coordinates of
    ``crs``. Either of the two is None where the tile does not state it.
    """

    height: int
    width: int
    crs: CRS | None
    transform: Affine | None

    @property
    def gsd(self) -> float | None:
        """Ground sampling distance in metres per pixel: the square root of a pixel's area.

        None unless the coordinates are lengths on the ground: a projected CRS, and not Mercator's
        projection, whose metres shrink with the latitude.
        """
        if self.crs is None or self.transform is None or not self.crs.is_projected:
            return None
        if self.crs.to_dict().get("proj") == "merc":
            return None
        metres = self.crs.linear_units_factor[1]
        return round(math.sqrt(abs(self.transform.determinant)) * metres, 9)


def check_tile(tile: TilePair, patch_size: int) -> Grid:
    """Check what the headers of a tile's image and mask say, and return the tile's grid.

    Raises UserError if the image is not 8-bit RGB, the mask has more than one band, sizes or
    georeferencing of the two differ (where only one of them is georeferenced there is nothing to
    compare, and its georeferencing counts), the tile is smaller than ``patch_size`` pixels, or one
    of the files cannot be read.
    """
    with open_raster(tile.image) as source:
        if source.count != 3 or set(source.dtypes) != {"uint8"}:
            raise UserError(
                f"{tile.image}: {_bands(source)}; expected 8-bit RGB, 3 bands of uint8. Convert "
                "it, for example with `gdal_translate -b 1 -b 2 -b 3 -ot Byte -scale`."
            )
        image = _grid(source)
    with open_raster(tile.mask) as source:
        if source.count != 1:
            raise UserError(
                f"{tile.mask}: {_bands(source)}; expected a mask with one band. Take one of them, "
                "for example with `gdal_translate -b 1`."
            )
        mask = _grid(source)

    if (image.height, image.width) != (mask.height, mask.width):
        raise UserError(
            f"{tile.mask}: {mask.width} x {mask.height} px, but its image {tile.image} has "
            f"{image.width} x {image.height} px. Image and mask must cover the same pixels."
        )
    if min(image.height, image.width) < patch_size:
        raise UserError(
            f"{tile.image}: {image.width} x {image.height} px, smaller than a patch of "
            f"{patch_size} px. Set a smaller `patch_size`, or take the tile out of split.csv."
        )
    if image.crs and mask.crs and image.crs != mask.crs:
        raise UserError(
            f"{tile.mask}: its CRS is {mask.crs.to_string()}, but its image {tile.image} has "
            f"{image.crs.to_string()}. Warp one of them to the other's grid."
        )
    if image.transform and mask.transform:
        shift = _shift(image, mask.transform)
        if shift > MAX_SHIFT_PX:
            raise UserError(
                f"{tile.mask}: georeferenced {shift:.3g} px away from its image {tile.image}. "
                "Image and mask must have the same transform."
            )
    return Grid(image.height, image.width, image.crs or mask.crs, image.transform or mask.transform)


def read_tile_mask(path: Path) -> Image:
    """Read a tile's mask in strips of rows, checking every value.

    Returns (H, W) uint8, 0 background and 1 building; the file may say either as 0/1 or as 0/255.
    Raises UserError for any other value and for a file that is broken anywhere.
    """
    with open_raster(path) as source:
        mask: Image = np.empty(source.shape, np.uint8)
        building = 0  # until the first strip that holds any
        for row in range(0, source.height, MASK_STRIP_ROWS):
            rows = min(MASK_STRIP_ROWS, source.height - row)
            strip = source.read(1, window=Window(0, row, source.width, rows))
            highest = strip.max()
            if building == 0 and highest in (1, 255):
                building = int(highest)
            if not ((strip == 0) | (strip == building)).all():
                found = sorted({*np.unique(strip).tolist(), building})
                shown = ", ".join(f"{value:g}" for value in found[:6])
                raise UserError(
                    f"{path}: rows {row} to {row + rows - 1} hold the values {shown}"
                    f"{', ...' if len(found) > 6 else ''}; expected 0 for background and one other "
                    "value for building, 1 or 255, throughout the file."
                )
            mask[row : row + rows] = strip != 0
    return mask


def read_tile_window(path: Path, row: int, col: int, size: int) -> Image:
    """Read a square window of a tile's image: (size, size, 3) uint8 RGB.

    ``row`` and ``col`` are the window's top-left pixel. Only the blocks under the window are read,
    and the very last pixel: it is gone from a file that was cut off. Raises UserError if those
    cannot be read; damage elsewhere is not noticed.
    """
    with open_raster(path) as source:
        source.read(window=Window(source.width - 1, source.height - 1, 1, 1))
        pixels: Image = source.read(window=Window(col, row, size, size))
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


@contextmanager
def open_raster(path: Path) -> Iterator[DatasetReader]:
    """Open a raster for reading; what GDAL cannot open or read inside the block is a UserError."""
    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), warnings.catch_warnings():
            # A plain PNG or JPEG is welcome here.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                yield source
    except RASTER_ERRORS as error:
        raise UserError(
            f"{path}: cannot be read; it is cut off, damaged or no raster. Replace it with a whole "
            f"file. GDAL says: {error.__cause__ or error}"
        ) from None


def _bands(source: DatasetReader) -> str:
    kinds = ", ".join(sorted(set(source.dtypes)))
    return f"{source.count} {'band' if source.count == 1 else 'bands'} of {kinds or 'no type'}"


def _grid(source: DatasetReader) -> Grid:
    # GDAL gives the identity to a raster that states no transform.
    transform = None if source.transform == Affine.identity() else source.transform
    return Grid(source.height, source.width, source.crs or None, transform)


def _shift(image: Grid, mask: Affine) -> float:
    """How far, in pixels, a corner of the image's grid lies from that of the mask's, at most."""
    if mask.is_degenerate or image.transform is None:
        return math.inf
    to_mask = ~mask @ image.transform
    corners = [(col, row) for col in (0, image.width) for row in (0, image.height)]
    return max(math.dist(to_mask @ corner, corner) for corner in corners)
