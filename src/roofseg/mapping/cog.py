"""Cloud-optimised GeoTIFFs, written block by block."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter
from rasterio.transform import Affine
from rasterio.windows import Window

from roofseg.core.errors import REMEDIES, UserError
from roofseg.tiles.rasters import GDAL_ERRORS

TILE = 512


# GDAL and SQLite give no reason when they cannot write. It is nearly always a full disk.
SPACE = REMEDIES[errno.EDQUOT]


class NotWrittenError(UserError):
    """An output cannot be written, and for the same reason further outputs could not either."""

    def __init__(self, out: Path, error: BaseException) -> None:
        reason, remedy = str(error), SPACE
        if isinstance(error, OSError) and error.errno:
            remedy = REMEDIES.get(error.errno, "Choose another folder with --out")
            reason = error.strerror or reason
            if error.filename and Path(os.fsdecode(error.filename)) in out.parents:
                reason = f"{os.fsdecode(error.filename)}: {reason}"
        super().__init__(
            f"{out}: cannot be written ({reason}). {remedy}, then run the same command again: "
            "finished files are kept."
        )


@dataclass(frozen=True)
class BandSpec:
    """The band of an output: data type, nodata value, resampling of overviews, and description."""

    dtype: str
    nodata: float
    overviews: str
    description: str


class BlockWriter:
    """Writes blocks to a temporary tiled GeoTIFF, from which `write_cog` makes the final file.

    A context manager, which closes the temporary file. Blocks must come one strip of columns after
    the other, each strip from the top and starting at a multiple of ``TILE``. The writer holds rows
    back until they fill whole tiles, so that no tile is compressed twice.
    """

    def __init__(
        self,
        path: Path,
        layer: BandSpec,
        *,
        height: int,
        width: int,
        crs: CRS | None,
        transform: Affine,
        tags: Mapping[str, str],
    ) -> None:
        self.path, self.layer = path, layer
        self._height = height
        self._held: list[npt.NDArray[Any]] = []
        self._row = 0  # first row of the held blocks
        self._written: list[tuple[Window, int]] = []  # windows and the checksums of their pixels
        profile = {
            "driver": "GTiff",
            "height": height,
            "width": width,
            "count": 1,
            "dtype": layer.dtype,
            "nodata": layer.nodata,
            "crs": crs,
            "transform": transform,
            "tiled": True,
            "blockxsize": TILE,
            "blockysize": TILE,
            "compress": "deflate",
            "zlevel": 1,
            "bigtiff": "if_safer",
        }
        with _georeference_optional():
            self._target: DatasetWriter = rasterio.open(path, "w", **profile)
        self._target.update_tags(**tags)
        self._target.set_band_description(1, layer.description)

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with contextlib.suppress(*GDAL_ERRORS) if error else contextlib.nullcontext():
            self._target.close()

    def write(self, row: int, col: int, block: npt.NDArray[Any]) -> None:
        """Add a block (rows, columns) whose top-left pixel is (``row``, ``col``)."""
        if not self._held:
            self._row = row
        self._held.append(block)
        end = row + len(block)
        whole = end if end == self._height else end - end % TILE
        if whole <= self._row:
            return
        held = np.concatenate(self._held)
        ready, rest = held[: whole - self._row], held[whole - self._row :]
        window = Window(col, self._row, held.shape[1], len(ready))
        self._target.write(ready, 1, window=window)
        self._written.append((window, zlib.crc32(ready.tobytes())))
        self._held = [rest] if len(rest) else []
        self._row = whole

    def write_cog(self, out: Path) -> None:
        """Write all blocks as a cloud-optimised GeoTIFF, deflated. Close the writer first.

        Raises OSError if the file reads back differently: on a full disk GDAL may cut a file off
        without an error.
        """
        with _georeference_optional():
            rasterio.shutil.copy(
                self.path,
                out,
                driver="COG",
                compress="deflate",
                predictor="yes" if self.layer.dtype == "float32" else "no",
                blocksize=TILE,
                overview_resampling=self.layer.overviews,
                bigtiff="if_safer",
                num_threads="all_cpus",
            )
            with rasterio.open(out) as written:
                for window, checksum in self._written:
                    if zlib.crc32(written.read(1, window=window).tobytes()) != checksum:
                        raise OSError("the file reads back differently from what was written")


@contextlib.contextmanager
def write_errors_named(out: Path) -> Iterator[None]:
    """Turn write errors raised in the block into a NotWrittenError that names ``out``."""
    try:
        yield
    except (*GDAL_ERRORS, OSError) as error:
        raise NotWrittenError(out, error.__cause__ or error) from None


@contextlib.contextmanager
def _georeference_optional() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the input may have none
        yield
