"""Convert imagery to 8-bit RGB, with one scale for all tiles of a dataset.

`sliding_window.imagery` reads the imagery, so that training and prediction see the same pixels.
"""

from __future__ import annotations

import errno
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.intake.inspect import MAX_EXPANSION, open_bounded, parts
from roofseg.sliding_window.imagery import open_imagery, unused_placement
from roofseg.tiles.bands import RgbBands, find_rgb, is_all_valid, read_rgb
from roofseg.tiles.grid import check_square, read_grid
from roofseg.tiles.orientation import check_upright

# These percentiles over all tiles become 0 and 255. With minimum and maximum instead, a few bright
# roofs and deep shadows would leave the rest hardly any contrast.
PERCENTILES = (2, 98)
# Largest number of pixels, over all tiles, from which the percentiles are computed.
SAMPLED = 2_000_000
# Formats that can be copied. Others are converted: a file may be a mere list of other files (VRT).
SUFFIXES = {"GTiff": ".tif", "JPEG": ".jpg", "PNG": ".png"}
BLOCK = 512


@dataclass(frozen=True)
class ImageHeader:
    """Properties of imagery, read from its header.

    Attributes:
        path: the file.
        dtype: NumPy name of the type of its red, green and blue bands.
        as_is: whether it can be copied: only 8-bit RGB bands, in a format of `SUFFIXES`.
        notes: the changes that `write_rgb` makes, and georeferences that are not used, in words.
    """

    path: Path
    dtype: str
    as_is: bool
    notes: tuple[str, ...]


def read_image_header(path: Path, max_expansion: float = MAX_EXPANSION) -> ImageHeader:
    """Read the header of imagery.

    Raises UserError if it cannot be read (see `inspect.open_bounded`), has no red, green and blue
    bands, has pixels that are not square, or may be turned (see `find_rgb`, `check_square` and
    `check_upright` in `roofseg.tiles.orientation`).
    """
    with open_bounded(path, max_expansion) as source:
        bands = find_rgb(path, source)
        grid = read_grid(source)
        remedy = "Warp it and its mask"
        if grid.crs is None:
            remedy = f"State its CRS (`gdal_edit.py -a_srs EPSG:CODE`). {remedy}, if need be,"
        check_square(path, grid, remedy=remedy)
        check_upright(path, source)
        notes = [bands.note] if bands.note else []
        if bands.dtype != "uint8":
            notes.append(f"{bands.dtype}, scaled to 8 bits")
        if missing := _missing(source, bands):
            notes.append(f"pixels without data ({missing}) become black")
        if source.driver not in SUFFIXES:
            notes.append(f"{source.driver}, written as GeoTIFF")
        plain = source.count == 3 and bands.dtype == "uint8" and not bands.note
        black = not missing or set(source.nodatavals) == {0.0}
        as_is = source.driver in SUFFIXES and plain and black
        told = [*([] if as_is else notes), *filter(None, [unused_placement(source)])]
        return ImageHeader(path, bands.dtype, as_is, tuple(told))


def find_scale(paths: Sequence[Path], max_expansion: float = MAX_EXPANSION) -> tuple[float, float]:
    """Find the values that become 0 and 255 in all of these rasters.

    They are the `PERCENTILES` of red, green and blue values together, over a regular grid of pixels
    of each raster: about the same number from each, at most `SAMPLED` in all. Pixels without data
    are left out. All bands share one scale, which keeps the colours.

    Raises UserError if a raster cannot be read, or if the two values are equal.
    """
    values = []
    for path in paths:
        with open_bounded(path, max_expansion) as source:
            bands = find_rgb(path, source)
            step = math.ceil(math.sqrt(source.height * source.width * len(paths) / SAMPLED))
            # Read all pixels in parts: a decimated read by GDAL takes forty times as long.
            for part in parts(source):
                taken = (
                    slice(-part.row_off % step, None, step),
                    slice(-part.col_off % step, None, step),
                )
                pixels, valid = read_rgb(source, bands, part)
                values.append(pixels[:, *taken][:, valid[taken]].astype(np.float64).ravel())
    together = np.concatenate(values)
    low, high = np.percentile(together, PERCENTILES).tolist() if together.size else (0.0, 0.0)
    if not low < high:
        raise UserError(
            f"{paths[0].parent}: cannot be scaled: of {together.size} sampled values, percentile "
            f"{PERCENTILES[0]} is {low:g} and {PERCENTILES[1]} is {high:g}; expected imagery. "
            "Convert it to 8-bit RGB yourself, for example with `gdal_translate -ot Byte -scale`."
        )
    return low, high


def write_rgb(path: Path, out: Path, scale: tuple[float, float] | None) -> None:
    """Write red, green and blue of ``path`` as a GeoTIFF of 8-bit RGB at ``out``.

    With ``scale`` = (low, high), low becomes 0 and high 255, linearly and rounded; values beyond
    these are clipped. Pixels without data (nodata, NaN, transparent) become black. CRS and
    transform are kept. Raises UserError if ``path`` cannot be read, OSError if ``out`` cannot be
    written.
    """
    with open_imagery(str(path), scale=scale) as imagery:
        profile = {
            "driver": "GTiff",
            "height": imagery.height,
            "width": imagery.width,
            "count": 3,
            "dtype": "uint8",
            "photometric": "RGB",
            "crs": imagery.crs,
            "transform": None if imagery.transform == Affine.identity() else imagery.transform,
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "interleave": "pixel",
            "compress": "deflate",
            "predictor": 2,
            "bigtiff": "if_safer",
        }
        with verified_write(out), rasterio.open(out, "w", **profile) as target:
            # While it is scaled, a value takes 8 bytes.
            for part in parts(target, copies=8):
                image, _ = imagery.read(part.row_off, part.height, part.col_off, part.width)
                target.write(image.transpose(2, 0, 1), window=part)


@contextmanager
def verified_write(out: Path) -> Iterator[None]:
    """After the block has written a raster at ``out``, check that it is whole.

    Raises OSError if it is not. (A UserError would be collected, as if it concerned this tile
    alone; a full disk concerns all tiles.)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # plain imagery is allowed
            yield
            # GDAL does not report errors while it closes a file, such as a full disk: read it back.
            with rasterio.open(out) as made:
                made.read(window=Window(made.width - 1, made.height - 1, 1, 1))
    except RasterioError as error:
        why = f"cannot be written; GDAL says: {error.__cause__ or error}".rstrip(".")
        raise OSError(errno.ENOSPC, why, str(out)) from None


def _missing(source: DatasetReader, bands: RgbBands) -> str:
    """How a raster marks pixels without data, in words; "" if no pixel is marked."""
    if is_all_valid(source, bands):
        return ""
    if ColorInterp.alpha in source.colorinterp:
        return "transparent in an alpha band"
    values = [source.nodatavals[band - 1] for band in bands.indexes]
    if None not in values:
        return f"nodata {', '.join(sorted({f'{value:g}' for value in values}))}"
    return "masked"
