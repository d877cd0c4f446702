"""The colour bands of a raster, and which of its pixels hold data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from roofseg.core.errors import UserError

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
UNNAMED = (ColorInterp.undefined, ColorInterp.gray)  # GDAL calls an unnamed band 1 gray


@dataclass(frozen=True)
class RgbBands:
    """The bands of a raster that hold red, green and blue.

    Attributes:
        indexes: the band numbers of red, green and blue, from 1.
        dtype: the type of these bands, as NumPy names it.
        note: tells the user which bands are used; "" if the raster has only red, green and blue, in
            this order, and perhaps alpha.
    """

    indexes: tuple[int, int, int]
    dtype: str
    note: str


def find_rgb(name: str | Path, source: DatasetReader) -> RgbBands:
    """Find the red, green and blue bands of an open raster.

    If the colour interpretation names all three, the named bands are used, in whatever order they
    stand; otherwise the first three bands that are not alpha.

    Raises UserError if there are fewer than three bands beside alpha, if a band that is used by its
    position is named as another colour, or if the three bands differ in type. ``name`` begins the
    message.
    """
    colours = source.colorinterp
    opaque = [band for band, colour in enumerate(colours, 1) if colour != ColorInterp.alpha]
    bands = describe_bands(source)
    listed = ", ".join(colour.name for colour in colours)
    if len(opaque) < 3:
        remedy = (
            "Expand its palette with `gdal_translate -expand rgb`."
            if ColorInterp.palette in colours
            else "Name the imagery itself, not a mask or a single band of it."
        )
        alpha = f" ({listed})" if len(opaque) < source.count else ""
        raise UserError(f"{name}: {bands}{alpha}; expected RGB. {remedy}")
    named = set(RGB) <= set(colours)
    red, green, blue = [colours.index(c) + 1 for c in RGB] if named else opaque[:3]
    if not named and any(
        colours[band - 1] not in (expected, *UNNAMED)
        for band, expected in zip((red, green, blue), RGB, strict=True)
    ):
        raise UserError(
            f"{name}: its bands are {listed}; expected bands named red, green and blue in any "
            "order, or no names. Name them with `gdal_edit.py -colorinterp_1 red -colorinterp_2 "
            "green -colorinterp_3 blue`, with the numbers of your bands."
        )
    dtypes = {source.dtypes[band - 1] for band in (red, green, blue)}
    if len(dtypes) > 1:
        raise UserError(f"{name}: {bands}; expected red, green and blue of one type.")
    note = ""
    if (red, green, blue) != (1, 2, 3) or len(opaque) > 3:
        why = "by colour interpretation" if named else "by position"
        note = f"{bands}: bands {red}, {green}, {blue} are read as red, green, blue ({why})"
    return RgbBands((red, green, blue), dtypes.pop(), note)


def describe_bands(source: DatasetReader) -> str:
    """The number and types of a raster's bands, such as "3 bands of uint8"."""
    dtypes = ", ".join(sorted(set(source.dtypes)))
    return f"{source.count} {'band' if source.count == 1 else 'bands'} of {dtypes}"


def is_all_valid(source: DatasetReader, bands: RgbBands) -> bool:
    """Whether a raster declares that all its pixels hold data: no nodata, mask or alpha."""
    flags = [source.mask_flag_enums[band - 1] for band in bands.indexes]
    return not _alpha(source) and all(MaskFlags.all_valid in band_flags for band_flags in flags)


def read_rgb(
    source: DatasetReader, bands: RgbBands, window: Window
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Read a window's red, green and blue, and which of its pixels hold data.

    A pixel holds no data if red, green and blue are all nodata or masked, if one of them is NaN or
    infinite, or if its alpha is 0.

    Returns:
        The pixels, (3, rows, cols) of the bands' type, 0 where there is no data; and the valid
        mask, (rows, cols) bool.
    """
    pixels = source.read(bands.indexes, window=window)
    valid: npt.NDArray[np.bool_] = np.isfinite(pixels).all(axis=0)
    if not is_all_valid(source, bands):
        valid &= source.read_masks(bands.indexes, window=window).any(axis=0)
        # GDAL turns an alpha band into a mask only if it is the last of two or four bands.
        if alpha := _alpha(source):
            valid &= source.read(alpha, window=window).all(axis=0)
    return pixels if valid.all() else np.where(valid, pixels, 0), valid


def _alpha(source: DatasetReader) -> list[int]:
    """The numbers of the alpha bands, from 1."""
    return [
        band for band, colour in enumerate(source.colorinterp, 1) if colour == ColorInterp.alpha
    ]
