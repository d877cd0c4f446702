"""Open rasters of every kind that GDAL reads; a broken one raises a UserError that names it."""

from __future__ import annotations

import re
import shlex
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio

# rasterio.shutil and some reads raise this error, which has no public name. TestPrivateNames in
# tests/tiles/test_rasters.py fails as soon as rasterio raises a public error instead.
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from roofseg.core.errors import UserError
from roofseg.core.messages import shortened

# GDAL's default cache is a share of the machine's memory. This is enough, since at most one row of
# blocks is read twice.
GDAL_CACHE_MB = 64
# For remote files: do not list the folder around them, and retry when a server is busy.
REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}
GDAL_ERRORS = (RasterioError, CPLE_BaseError)
# A damaged header can also give an invalid CRS, text that is not UTF-8, or absurd sizes.
RASTER_ERRORS = (*GDAL_ERRORS, CRSError, UnicodeDecodeError, MemoryError)


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
