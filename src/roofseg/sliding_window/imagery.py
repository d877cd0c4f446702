"""Read rasters as model input: 8-bit RGB at a GSD that the model was trained on, and a valid mask.

An input is anything that GDAL opens: files, VRTs, https:// and s3://. A raster that cannot be model
input raises a UserError that names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.core.images import Image
from roofseg.tiles.rasters import (
    RgbBands,
    describe_bands,
    find_rgb,
    is_all_valid,
    is_remote,
    open_raster,
    raster_errors_named,
    read_grid,
    read_valid,
)

# The GSD of an input may differ from the GSDs trained on by this share; augmentation varies the
# scale by more.
GSD_TOLERANCE = 0.05
# Imagery may be resampled to pixels this many times smaller. At 3 m per pixel, a roof of 10 m is
# 3 px wide; refining it to 0.3 m would cost 100 times the pixels and show nothing new.
MAX_REFINEMENT = 10
RASTERS = {".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".img"}
# GDAL's warper needs a CRS; a raster that has none gets its own pixels as one.
NO_CRS = CRS.from_wkt('LOCAL_CS["pixels",UNIT["pixel",1]]')


class Imagery:
    """An open raster, made by `open_imagery`.

    Attributes:
        name: the raster's path or address, as the user gave it
        height, width: pixels, of the grid that is predicted
        crs: None where the raster states no CRS or no transform
        transform: maps (column, row) to the coordinates of ``crs``, or to (column, row) of the
            input where it states no georeferencing
        gsd: metres per pixel; None where unknown
        notes: remarks to show to the user
    """

    def __init__(
        self,
        name: str,
        source: DatasetReader,
        bands: RgbBands,
        *,
        crs: CRS | None,
        gsd: float | None,
        scale: Sequence[float] | None,
        notes: Sequence[str],
    ) -> None:
        self.name, self.crs, self.gsd, self.notes = name, crs, gsd, list(notes)
        self.height, self.width = source.height, source.width
        self.transform: Affine = source.transform
        self._source, self._bands, self._scale = source, bands, scale
        self._all_valid = is_all_valid(source, bands)

    def read(self, row: int, rows: int, col: int, cols: int) -> tuple[Image, npt.NDArray[np.bool_]]:
        """Read a rectangle of the raster.

        Args:
            row, rows: first row, and number of rows
            col, cols: first column, and number of columns

        Returns:
            The image, (rows, cols, 3) uint8 RGB, black where there is no data; and the valid mask,
            (rows, cols) bool, False where there is no data.

        Raises:
            UserError: the file is damaged or unreachable
        """
        window = Window(col, row, cols, rows)
        with raster_errors_named(self.name):
            pixels = self._source.read(self._bands.indexes, window=window)
            valid = np.ones((rows, cols), bool)
            if not self._all_valid:
                valid = read_valid(self._source, window)
        if self._scale is not None:
            low, high = self._scale
            valid &= ~np.isnan(pixels).any(0)
            scaled = (pixels.astype(np.float64) - low) * (255 / (high - low))
            pixels = np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        image[~valid] = 0
        return image, valid


@contextmanager
def open_imagery(
    name: str,
    trained: tuple[float, ...] = (),
    *,
    gsd: float | None = None,
    resample: bool = False,
    scale: Sequence[float] | None = None,
) -> Iterator[Imagery]:
    """Open a raster as input of a model.

    Args:
        name: a path or address that GDAL opens.
        trained: GSDs that the model was trained on, metres per pixel, ascending; () where unknown,
            and then GSDs are not compared.
        gsd: metres per pixel, instead of the raster's own. Needed where the raster states no
            place on Earth, which its GSD is measured at (see `roofseg.tiles.ground.ground_gsd`).
        resample: resample a raster of another GSD to the nearest GSD trained on (average of finer
            pixels, cubic interpolation of coarser ones). The new grid covers the same ground.
        scale: the values (low, high) that become 0 and 255; needed where pixels are not 8-bit.

    Raises:
        UserError: the raster cannot be opened; it has no red, green and blue
            (`roofseg.tiles.rasters.find_rgb`); its pixels are not 8-bit and no ``scale`` is given;
            its GSD is not one trained on and ``resample`` is not set, or is more than
            `MAX_REFINEMENT` times coarser; or ``resample`` is set and one of the GSDs is unknown
    """
    with open_raster(name) as source:
        bands = find_rgb(name, source)
        if bands.dtype != "uint8" and scale is None:
            raise UserError(
                f"{name}: {describe_bands(source)}; expected 8-bit RGB, as trained on. Set which "
                "values become 0 and 255 with --scale LOW HIGH, the same as for the training "
                "tiles."
            )
        notes = [bands.note] if bands.note else []
        grid = read_grid(source)
        crs = grid.crs if grid.transform else None
        if source.gcps[0] and crs is None:
            notes.append(
                "its control points are not used, so the result has no georeference; warp it "
                "first, for example with `gdalwarp`"
            )
        # A GSD of 0, which a broken transform or unit gives, counts as unknown.
        source_gsd = gsd or (grid.gsd if crs else None) or None
        target = _target_gsd(name, source_gsd, trained, resample)
        if target is None:
            if source_gsd is None and trained:
                notes.append(
                    f"its GSD is unknown; taken as the {_metres(trained)} trained on (--gsd)"
                )
            yield Imagery(name, source, bands, crs=crs, gsd=source_gsd, scale=scale, notes=notes)
        else:
            assert source_gsd is not None
            notes.append(f"resampled from {source_gsd:g} to {target:g} m per pixel")
            with _resampled(source, target / source_gsd) as warped:
                yield Imagery(name, warped, bands, crs=crs, gsd=target, scale=scale, notes=notes)


def list_inputs(names: Sequence[str]) -> list[str]:
    """List the rasters to predict: files and addresses as given, and the rasters in each folder.

    Rasters in a folder are found by suffix and sorted by name; subfolders are not entered.

    Raises:
        UserError: a folder holds no raster; a name is empty or not UTF-8
        OSError: a folder cannot be listed
    """
    inputs: list[str] = []
    for name in names:
        if not name:
            raise UserError("an input's name is empty. Is a variable of the shell not set?")
        folder = Path(name)
        if is_remote(name) or not folder.is_dir():
            inputs.append(name)
            continue
        inside = [
            str(path)
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in RASTERS
            and not path.name.startswith(".")
            and not path.is_dir()
        ]
        if not inside:
            raise UserError(
                f"{name}: no raster in this folder; expected files with one of the suffixes "
                f"{' '.join(sorted(RASTERS))}. Subfolders are not entered."
            )
        inputs += inside
    for name in inputs:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{name!a}: its name is not UTF-8. Rename the file.") from None
    return inputs


def file_name(name: str) -> str:
    """The last part of a raster's path or address, without the query of an address."""
    return PurePosixPath(urlsplit(name).path).name if is_remote(name) else Path(name).name


def _target_gsd(
    name: str, gsd: float | None, trained: tuple[float, ...], resample: bool
) -> float | None:
    """The GSD to resample to from ``gsd`` (None if unknown); None to take the raster as it is."""
    if not trained:
        if resample:
            raise UserError(
                f"{name}: --resample needs the GSD that the model was trained on, and the model "
                "does not state it. Leave the option out."
            )
        return None
    if gsd is None:
        if resample:
            raise UserError(
                f"{name}: its GSD is unknown (it states no place on Earth), so it cannot be "
                f"resampled to the {_metres(trained)} trained on. Give --gsd METRES."
            )
        return None
    if trained[0] * (1 - GSD_TOLERANCE) <= gsd <= trained[-1] * (1 + GSD_TOLERANCE):
        return None
    if not resample:
        raise UserError(
            f"{name}: {gsd:g} m per pixel, but the model was trained on {_metres(trained)}. Use "
            "--resample, or give --gsd METRES if the raster states a wrong one."
        )
    target = min(trained, key=lambda candidate: abs(math.log(candidate / gsd)))
    if gsd > MAX_REFINEMENT * target:
        raise UserError(
            f"{name}: {gsd:g} m per pixel, more than {MAX_REFINEMENT} times the {target:g} m "
            "trained on; expected imagery that shows roofs. Give --gsd METRES if the raster states "
            "a wrong one."
        )
    return target


def _metres(trained: tuple[float, ...]) -> str:
    ends = {f"{gsd:g}" for gsd in (trained[0], trained[-1])}
    return f"{' to '.join(sorted(ends, key=float))} m per pixel"


@contextmanager
def _resampled(source: DatasetReader, factor: float) -> Iterator[WarpedVRT]:
    """Open the raster on a grid over the same ground with pixels ``factor`` times as large."""
    width, height = (max(1, round(side / factor)) for side in (source.width, source.height))
    crs = source.crs or NO_CRS
    masked = any(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums)
    alpha = ColorInterp.alpha in source.colorinterp
    with WarpedVRT(
        source,
        src_crs=crs,
        crs=crs,
        transform=source.transform @ Affine.scale(source.width / width, source.height / height),
        width=width,
        height=height,
        resampling=Resampling.average if factor > 1 else Resampling.cubic,
        add_alpha=masked and not alpha,
    ) as warped:
        yield warped
