"""Read rasters: their pixel grid, colour bands, mask values and pixels; check a dataset's tiles.

A dataset is a folder with ``imgs/`` and ``msks/`` (any raster that GDAL reads, georeferenced or
not; image and mask of a tile share their stem) and two small tables, ``split.csv`` (tile,split) and
``nudges.csv`` (tile,row,col). A file that is wrong or broken raises a UserError that names it.
"""

from __future__ import annotations

import math
import re
import shlex
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

# rasterio.shutil and some reads raise this error, which has no public name. TestPrivateNames in
# tests/tiles/test_rasters.py fails as soon as rasterio raises a public error instead.
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.core.images import UNKNOWN, Image
from roofseg.core.messages import shortened
from roofseg.tiles.ground import ground_gsd
from roofseg.tiles.unknown import holds_value

# Suffixes of files that lie beside rasters.
WORLD_FILES = (".wld", ".tfw", ".tifw", ".tiffw", ".jgw", ".jpgw", ".jpegw", ".pgw", ".pngw")
NOTES = (".xml", ".aux", ".rrd", ".ovr", ".msk", ".prj", ".hdr", ".txt", ".md", ".csv", ".json")
SIDECARS = {*NOTES, *WORLD_FILES}
# GDAL's default cache is a share of the machine's memory. This is enough, since at most one row of
# blocks is read twice.
GDAL_CACHE_MB = 64
# For remote files: do not list the folder around them, and retry when a server is busy.
REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}
MASK_STRIP_ROWS = 256
GDAL_ERRORS = (RasterioError, CPLE_BaseError)
# A damaged header can also give an invalid CRS, text that is not UTF-8, or absurd sizes.
RASTER_ERRORS = (*GDAL_ERRORS, CRSError, UnicodeDecodeError, MemoryError)
# File formats round their georeferencing, but by less than a tenth of a pixel.
MAX_SHIFT_PX = 0.1
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
UNNAMED = (ColorInterp.undefined, ColorInterp.gray)  # GDAL calls an unnamed band 1 gray
# The sides of a pixel may differ by this share; augmentation varies the scale by more.
SQUARE_TOLERANCE = 0.05
ORIENTATION_TAG = 274


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


@dataclass(frozen=True)
class Grid:
    """The pixel grid of a raster.

    ``height`` and ``width`` are in pixels; ``transform`` maps (column, row) to the coordinates of
    ``crs``. ``crs`` and ``transform`` are None where the raster does not state them.
    """

    height: int
    width: int
    crs: CRS | None
    transform: Affine | None

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Its corners as (column, row), from the top left, clockwise."""
        return [(0, 0), (self.width, 0), (self.width, self.height), (0, self.height)]

    @property
    def gsd(self) -> float | None:
        """Ground sampling distance in metres per pixel: the square root of a pixel's area.

        None where the raster does not state its place on Earth: see `ground_gsd`.
        """
        pixel = self._ground
        return pixel and round(math.sqrt(math.prod(pixel)), 9)

    def sides(self, gsd: float) -> tuple[float, float]:
        """The sides of a pixel, along a row and along a column of pixels.

        In metres if ``gsd`` is the square root of their product in metres. Equal where the raster
        does not tell their shape: it has no transform, or a degenerate one.
        """
        x, y = self._ground or self._sides or (1, 1)
        unit = gsd / math.sqrt(x * y)
        return x * unit, y * unit

    @property
    def is_sheared(self) -> bool:
        """Whether rows and columns of pixels are not at right angles, in the units of the CRS."""
        if self.transform is None or self._sides is None:
            return False
        a, b, _, d, e, *_ = self.transform
        return abs(a * b + d * e) > SQUARE_TOLERANCE * math.prod(self._sides)

    @property
    def _ground(self) -> tuple[float, float] | None:
        return ground_gsd(self.crs, self.transform, self.height, self.width)

    @property
    def _sides(self) -> tuple[float, float] | None:
        """The sides of a pixel in the units of the CRS; None where pixels have no area."""
        if self.transform is None or self.transform.is_degenerate:
            return None
        a, b, _, d, e, *_ = self.transform
        return math.hypot(a, d), math.hypot(b, e)


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


def check_square(
    name: str | Path, grid: Grid, gsd: float | None = None, *, remedy: str = "Warp it and its mask"
) -> None:
    """Raise UserError if a raster's pixels are oblong or sheared, so that its roofs are distorted.

    ``gsd`` is its GSD in metres per pixel, if not that of ``grid``; ``remedy`` begins the advice.
    """
    if grid.transform is None:
        return
    side = math.sqrt(abs(grid.transform.determinant))
    gsd = gsd or grid.gsd
    x, y = grid.sides(gsd or side)
    if grid.is_sheared:
        found = "are sheared (rows and columns not at right angles)"
    elif not is_square(x, y):
        found = f"are {x:g} x {y:g} {'m' if gsd else 'units of its georeference'}"
    else:
        return
    crs = ""
    is_square_in_crs = not grid.is_sheared and is_square(*grid._sides or (1, 1))
    if grid.crs and (grid.crs.is_geographic or is_square_in_crs):
        # What is square in a CRS that does not keep shapes, as in degrees, is not on the ground.
        crs, side = "-t_srs EPSG:CODE ", gsd or side
    raise UserError(
        f"{name}: its pixels {found}; expected square ones. {remedy} to square pixels, for example "
        f"with `gdalwarp {crs}-tr {side:g} {side:g}`{' (the code of its UTM zone)' if crs else ''}."
    )


def is_square(x: float, y: float) -> bool:
    """Whether the sides of a pixel count as equal."""
    return max(x, y) <= min(x, y) * (1 + SQUARE_TOLERANCE)


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


@contextmanager
def open_raster(name: Path | str) -> Iterator[DatasetReader]:
    """Open a raster that GDAL can read: a file, a VRT, an s3:// or https:// address.

    It may also be one of the rasters in a file, by GDAL's name for it: see `name_parts`.

    Raises UserError if the name is that of a pipe, a device or a socket; if GDAL cannot open the
    raster or, inside the block, cannot read it; if it has no band; or if it holds complex numbers.
    """
    _check_regular(str(name))
    options = REMOTE_OPTIONS if is_remote(str(name)) else {}
    with raster_errors_named(name), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # plain PNGs are allowed
            source = rasterio.open(name)
        with source:
            if not source.count:
                raise UserError(_no_band(name, source.subdatasets))
            if unusable := [dtype for dtype in source.dtypes if dtype.startswith("complex")]:
                raise UserError(
                    f"{name}: holds numbers of type {unusable[0]}; expected real numbers."
                )
            yield source


@contextmanager
def raster_errors_named(name: Path | str) -> Iterator[None]:
    """Turn GDAL's errors into a UserError that names the raster."""
    try:
        yield
    except RASTER_ERRORS as error:
        raise UserError(
            f"{name}: cannot be read; it is missing, cut off, damaged or not a raster. Replace it "
            f"with a whole file. GDAL says: {error.__cause__ or error}"
        ) from None


def is_remote(name: str) -> bool:
    """Whether a name is an address or one of GDAL's virtual files, and not a local path."""
    # GDAL names a raster in a file HDF5:"FILE"://PART, which is no address.
    return re.search(r"\w://", name) is not None or name.startswith("/vsi")


def name_parts(name: str) -> list[str]:
    """Split GDAL's name of one of several rasters in a file, such as ``GPKG:city.gpkg:roofs``.

    Returns file and raster, without quotes; for any other name the name itself.
    """
    match = re.fullmatch(r"[A-Za-z]\w+:(.+)", name)
    if match is None or is_remote(name) or Path(name).exists():
        return [name]
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]+)"|([^":]+)', match[1])]


def _check_regular(name: str) -> None:
    """Raise UserError for a pipe, a device or a socket: reading it could wait forever."""
    for part in name_parts(name):
        try:
            mode = Path(part).stat().st_mode
        except (OSError, ValueError):
            continue  # no local file; GDAL says what is wrong
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(
                f"{name}: is a pipe, a device or a socket; expected a regular file. Copy what it "
                "gives into a file first."
            )


def _no_band(name: str | Path, rasters: list[str]) -> str:
    """The message for a file that is no raster itself but may hold several."""
    if not rasters:
        return f"{name}: has no band; expected a raster. Name another file."
    names = [shlex.quote(raster) for raster in rasters]
    return (
        f"{name}: holds {len(rasters)} rasters; expected one. Extract one, for example with "
        f"`gdal_translate {names[0]} NEW.tif`; `roofseg predict` also takes their names as INPUT: "
        f"{shortened(names)}."
    )


def read_grid(source: DatasetReader) -> Grid:
    """The pixel grid of an open raster."""
    # GDAL gives the identity to a raster that states no transform.
    transform = None if source.transform == Affine.identity() else source.transform
    return Grid(source.height, source.width, source.crs or None, transform)


def shift_px(grid: Grid, other: Affine | None) -> float:
    """The largest distance, in pixels, between a grid's corner and its place by another transform.

    Infinite where one of them gives no place.
    """
    if other is None or other.is_degenerate or grid.transform is None:
        return math.inf
    to_other = ~other @ grid.transform
    return max(math.dist(to_other @ corner, corner) for corner in grid.corners)
