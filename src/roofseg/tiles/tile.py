"""The tiles of a dataset: check an image and its mask, and read them.

A dataset is a folder with ``imgs/`` and ``msks/`` (any raster that GDAL reads, georeferenced or
not; image and mask of a tile share their stem) and two small tables, ``split.csv`` (tile,split) and
``nudges.csv`` (tile,row,col). A file that is wrong or broken raises a UserError that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.core.images import UNKNOWN, Image
from roofseg.tiles.bands import describe_bands, find_rgb
from roofseg.tiles.grid import MAX_SHIFT_PX, Grid, check_square, read_grid, shift_px
from roofseg.tiles.orientation import check_upright
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.unknown import holds_value

# Suffixes of files that lie beside rasters.
WORLD_FILES = (".wld", ".tfw", ".tifw", ".tiffw", ".jgw", ".jpgw", ".jpegw", ".pgw", ".pngw")
NOTES = (".xml", ".aux", ".rrd", ".ovr", ".msk", ".prj", ".hdr", ".txt", ".md", ".csv", ".json")
SIDECARS = {*NOTES, *WORLD_FILES}
MASK_STRIP_ROWS = 256


@dataclass(frozen=True)
class TilePair:
    """A tile: its name (the stem of its files), its split, and the paths of its image and mask.

    ``unknown`` is the value in its mask of pixels that nobody has labelled; None if there are none.
    """

    name: str
    split: str
    image: Path
    mask: Path
    unknown: float | None = None


def check_tile(tile: TilePair, patch_size: int) -> tuple[Grid, str]:
    """Check the headers of a tile's image and mask.

    Returns the tile's grid, and the note on its bands that the user should read (`RgbBands.note`).
    If only the image or only the mask is georeferenced, its georeferencing counts for both.

    Raises UserError if the image is not 8-bit RGB (see `find_rgb`), the mask has more than one
    band, the sizes or the georeferencing of the two differ, the pixels are not square or may be
    turned (see `check_square` and `check_upright`), the tile is smaller than ``patch_size`` pixels,
    or a file cannot be read.
    """
    with open_raster(tile.image) as source:
        if source.count != 3 or set(source.dtypes) != {"uint8"}:
            raise UserError(
                f"{tile.image}: {describe_bands(source)}; expected 8-bit RGB, 3 bands of uint8. "
                "Convert it, for example with `gdal_translate -b 1 -b 2 -b 3 -ot Byte -scale`."
            )
        note = find_rgb(tile.image, source).note
        check_upright(tile.image, source)
        image = read_grid(source)
    with open_raster(tile.mask) as source:
        if source.count != 1:
            raise UserError(
                f"{tile.mask}: {describe_bands(source)}; expected a mask with one band. Keep one "
                "band, for example with `gdal_translate -b 1`."
            )
        check_upright(tile.mask, source)
        mask = read_grid(source)

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
        shift = shift_px(image, mask.transform)
        if shift > MAX_SHIFT_PX:
            raise UserError(
                f"{tile.mask}: georeferenced {shift:.3g} px away from its image {tile.image}. "
                "Image and mask must have the same transform."
            )
    crs, transform = image.crs or mask.crs, image.transform or mask.transform
    grid = Grid(image.height, image.width, crs, transform)
    check_square(tile.image, grid)
    return grid, note


def read_tile_mask(path: Path, unknown: float | None = None) -> Image:
    """Read a tile's mask in strips of rows, and check every value.

    Returns (H, W) uint8: 0 background, 1 building, and `UNKNOWN` where the file holds ``unknown``.
    Beside that the file may hold either 0 and 1 or 0 and 255. Raises UserError for any other value,
    and if any part of the file is damaged.
    """
    with open_raster(path) as source:
        mask: Image = np.empty(source.shape, np.uint8)
        building = 0
        for row in range(0, source.height, MASK_STRIP_ROWS):
            rows = min(MASK_STRIP_ROWS, source.height - row)
            strip = source.read(1, window=Window(0, row, source.width, rows))
            building = check_mask_values(path, strip, row, building, unknown)
            mask[row : row + rows] = mask_of(strip, unknown)
    return mask


def mask_of(values: npt.NDArray[Any], unknown: float | None) -> Image:
    """The mask that the values of a file stand for: 0 background, 1 building, `UNKNOWN`."""
    mask = (values != 0).astype(np.uint8)
    if unknown is not None:
        mask[holds_value(values, unknown)] = UNKNOWN
    return mask


def check_mask_values(
    path: Path,
    values: npt.NDArray[Any],
    row: int,
    building: int,
    unknown: float | None = None,
) -> int:
    """Check a part of a mask, and return the value that marks building.

    A mask holds 0 for background and one other value for building, 1 or 255, in the whole file,
    and perhaps a value for unknown.

    Args:
        path: path of the mask, for the message.
        values: (rows, cols) of the part, of any number type.
        row: first row of the part in the file.
        building: the value that this function returned for the part before; 0 for the first part.
        unknown: the value that the dataset declares for unknown; None if it declares none.

    Returns:
        1 or 255; 0 if no building was found so far.

    Raises:
        UserError: the part holds any other value, NaN included
    """
    rows = len(values)
    if unknown is not None:
        values = values[~holds_value(values, unknown)]
    if building == 0 and values.size and (highest := values.max()) in (1, 255):
        building = int(highest)
    if not ((values == 0) | (values == building)).all():
        found = np.union1d(values, [building] if building else [])
        shown = ", ".join(f"{value:g}" for value in found[:6])
        raise UserError(
            f"{path}: rows {row} to {row + rows - 1} hold the values {shown}"
            f"{', ...' if len(found) > 6 else ''}; expected 0 for background and one other value "
            "for building, 1 or 255, throughout the file. A soft mask (resampled, anti-aliased or "
            "saved as JPEG) needs a threshold first. If one value means that nobody has labelled a "
            "pixel, declare it: in msks/unknown.txt, or with `roofseg new-dataset --unknown VALUE`."
        )
    return building


def read_tile_window(path: Path, row: int, col: int, size: int) -> Image:
    """Read a square window of a tile's image: (size, size, 3) uint8 RGB.

    ``row`` and ``col`` are the window's top-left pixel. Only the blocks under the window are read,
    and the very last pixel, which is missing from a file that was cut off. Raises UserError if
    these cannot be read; damage elsewhere goes unnoticed.
    """
    with open_raster(path) as source:
        source.read(window=Window(source.width - 1, source.height - 1, 1, 1))
        bands = find_rgb(path, source).indexes
        pixels: Image = source.read(bands, window=Window(col, row, size, size))
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
