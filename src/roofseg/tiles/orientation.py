"""Orientation tags, by which viewers turn an image that GDAL does not turn."""

from __future__ import annotations

import struct
from pathlib import Path

from rasterio.io import DatasetReader
from rasterio.transform import Affine

from roofseg.core.errors import UserError

ORIENTATION_TAG = 274


def check_upright(name: str | Path, source: DatasetReader) -> None:
    """Raise UserError if an image and its mask may be turned differently: see `orientation`."""
    if (turned := orientation(source)) != 1:
        raise UserError(
            f"{name}: its orientation tag is {turned}, so viewers turn it, but GDAL and GIS do "
            "not; expected 1 (upright), since a mask drawn in a viewer would not fit. If the mask "
            "fits what a viewer shows, turn the pixels, for example with `mogrify -auto-orient`. "
            "If it fits the pixels as stored, drop the tag with `gdal_translate FILE NEW.tif`."
        )


def orientation(source: DatasetReader) -> int:
    """The orientation tag of a JPEG (EXIF) or a TIFF, 1 to 8, which GDAL ignores; 1 is upright.

    1 where there is no such tag, and for georeferenced rasters, whose transform places the pixels
    as they are stored.
    """
    if source.transform != Affine.identity():
        return 1
    value = 1
    if source.driver == "JPEG":
        text = source.tags().get("EXIF_Orientation", "")
        value = int(text) if text.isdecimal() else 1
    elif source.driver == "GTiff" and (local := [*filter(Path.is_file, map(Path, source.files))]):
        value = _tiff_orientation(local[0])
    return value if 1 <= value <= 8 else 1


def _tiff_orientation(path: Path) -> int:
    """The orientation tag in the first directory of a TIFF; 1 where there is none."""
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")  # BigTIFF has version 43
        place, number, size = ("8xQ", "Q", 20) if big else ("4xI", "H", 12)
        try:
            file.seek(struct.unpack_from(order + place, head)[0])
            (count,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
            entries = file.read(min(count, 65535) * size)
            for start in range(0, len(entries), size):
                tag, kind = struct.unpack_from(order + "HH", entries, start)
                if (tag, kind) == (ORIENTATION_TAG, 3):  # a number of 16 bits
                    value: int
                    (value,) = struct.unpack_from(
                        order + "H", entries, start + size - (8 if big else 4)
                    )
                    return value
        except (struct.error, OverflowError):
            pass  # a damaged file, which GDAL names
    return 1
