"""Rasters as a model sees them: 8-bit RGB on a grid of known GSD, and which pixels hold data.

Whatever GDAL opens is an input: files, VRTs, https:// and s3://. What a model cannot see is refused
by name.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.core.images import Image
from roofseg.tiles.rasters import GDAL_CACHE_MB, RASTER_ERRORS, Grid

# A difference in scale that augmentation shows a model anyway.
GSD_TOLERANCE = 0.05
# A roof of 10 m, of 33 px at 0.3 m, has 3 px left: refining shows no more of it, for 100 times the
# pixels.
MAX_REFINEMENT = 10
RASTERS = {".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".img"}
# Of what lies elsewhere: no look for other files around it, and another try at a busy server.
REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}
# The grid of a raster that has no CRS is its own pixels; GDAL's warper wants a name for it.
NO_CRS = CRS.from_wkt('LOCAL_CS["pixels",UNIT["pixel",1]]')


class Imagery:
    """An open raster: see `open_imagery`.

    Attributes:
        name: as the user gave it
        height, width: pixels, of the grid that is predicted
        crs: None where there is none, or no transform to it
        transform: maps (column, row) to the coordinates of ``crs``, or to (column, row) of the
            input where it states no georeferencing
        gsd: metres per pixel; None where unknown
        notes: what a user should know of it
    """

    def __init__(
        self, name: str, source: DatasetReader, gsd: float | None, scale: Sequence[float] | None
    ) -> None:
        self.name, self.gsd = name, gsd
        self.height, self.width = source.height, source.width
        self.crs = _crs(source)
        self.transform: Affine = source.transform
        self.notes: list[str] = []
        self._source, self._scale = source, scale
        flags = [source.mask_flag_enums[band] for band in range(3)]
        self._whole = all(MaskFlags.all_valid in each for each in flags)

    def read(self, row: int, rows: int, col: int, cols: int) -> tuple[Image, npt.NDArray[np.bool_]]:
        """Read a part: (rows, cols, 3) uint8 RGB, and (rows, cols) bool, where it holds data.

        Pixels without data are black. Raises UserError where the file is damaged or unreachable.
        """
        window = Window(col, row, cols, rows)
        with _mistakes(self.name):
            pixels = self._source.read((1, 2, 3), window=window)
            valid = np.ones((rows, cols), bool)
            if not self._whole:
                valid = self._source.dataset_mask(window=window) > 0
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
    """Open a raster for a model that was trained on the GSDs ``trained`` (m, ascending).

    Args:
        name: what GDAL opens.
        trained: () where unknown: then nothing is compared.
        gsd: metres per pixel, in place of what the raster says. It needs it where it has no CRS,
            has one in degrees, or one like Web Mercator, whose metres are none on the ground.
        resample: bring the raster to the nearest GSD trained on (averaged where it is finer, cubic
            where it is coarser). The grid is then a new one over the same ground.
        scale: the values (low, high) that become 0 and 255; needed where pixels are not 8-bit.

    Raises:
        UserError: it cannot be opened, has fewer than 3 bands, pixels that are not 8-bit (and no
            ``scale``), or another GSD than trained on (and no ``resample``, or one over
            MAX_REFINEMENT times as large); or ``resample`` where its GSD or those trained on are
            unknown
    """
    with opened(name) as it:
        notes = _check_bands(name, it, scale)
        if it.gcps[0] and _crs(it) is None:
            notes.append(
                "its control points are not used, so the result lies nowhere; warp it first, for "
                "example with `gdalwarp`"
            )
        found = gsd or _stated(it)
        target = _target(name, found, trained, resample)
        if target is None:
            imagery = Imagery(name, it, found, scale)
            imagery.notes += notes
            if found is None and trained:
                imagery.notes.append(
                    f"its GSD is unknown; taken as the {_metres(trained)} trained on (--gsd)"
                )
            yield imagery
        else:
            assert found is not None
            with _resampled(it, target / found) as warped:
                imagery = Imagery(name, warped, target, scale)
                imagery.crs = _crs(it)
                imagery.notes += [*notes, f"resampled from {found:g} to {target:g} m per pixel"]
                yield imagery


def find_rasters(names: Sequence[str]) -> list[str]:
    """The rasters that files, folders and addresses name: those of a folder sorted, by suffix.

    Folders below a folder are not entered. Raises UserError for a folder without any and for a name
    that is empty or not in UTF-8, OSError for a folder that cannot be listed.
    """
    found: list[str] = []
    for name in names:
        if not name:
            raise UserError("an input's name is empty; a variable that is not set?")
        folder = Path(name)
        if is_remote(name) or not folder.is_dir():
            found.append(name)
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
                f"{' '.join(sorted(RASTERS))}. Folders below it are not entered."
            )
        found += inside
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{name!a}: a name that is not in UTF-8. Rename the file.") from None
    return found


def is_remote(name: str) -> bool:
    """Whether a name is an address or one of GDAL's virtual files, and not a local path."""
    return "://" in name or name.startswith("/vsi")


def file_name(name: str) -> str:
    """A raster's name without folders, and without what an address has behind ``?``."""
    return PurePosixPath(urlsplit(name).path).name if is_remote(name) else Path(name).name


@contextmanager
def opened(name: str) -> Iterator[DatasetReader]:
    """Open any raster for reading; what GDAL cannot open or read in the block is a UserError."""
    settings = REMOTE if is_remote(name) else {}
    with _mistakes(name), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain image is welcome
            source = rasterio.open(name)
        with source:
            yield source


@contextmanager
def _mistakes(name: str) -> Iterator[None]:
    try:
        yield
    except RASTER_ERRORS as error:
        raise UserError(
            f"{name}: cannot be read; it is missing, cut off, damaged or no raster. GDAL says: "
            f"{error.__cause__ or error}"
        ) from None


def _check_bands(name: str, source: DatasetReader, scale: Sequence[float] | None) -> list[str]:
    """Refuse what is no imagery; gives what is to be said of the rest."""
    kinds = sorted(set(source.dtypes[:3]))
    bands = f"{source.count} {'band' if source.count == 1 else 'bands'} of {', '.join(kinds)}"
    if source.count < 3:
        palette = source.count and source.colorinterp[0] == ColorInterp.palette
        remedy = (
            "Expand its palette with `gdal_translate -expand rgb`."
            if palette
            else "Name the imagery itself, not a mask or a single band of it."
        )
        raise UserError(f"{name}: {bands or 'no band'}; expected RGB. {remedy}")
    if any("complex" in kind for kind in kinds):
        raise UserError(f"{name}: {bands}; expected real numbers.")
    if kinds != ["uint8"] and scale is None:
        raise UserError(
            f"{name}: {bands}; expected 8-bit RGB, as trained on. Say which values become 0 and "
            "255 with --scale LOW HIGH; they must be those of the training tiles."
        )
    extra = [interp for interp in source.colorinterp[3:] if interp != ColorInterp.alpha]
    return [f"{bands}: the first three are taken as red, green, blue"] if extra else []


def _crs(source: DatasetReader) -> CRS | None:
    # GDAL gives the identity to a raster that states no transform.
    return None if source.transform == Affine.identity() else source.crs or None


def _stated(source: DatasetReader) -> float | None:
    grid = Grid(source.height, source.width, _crs(source), source.transform)
    return grid.gsd or None  # 0 by a broken transform or unit, which states none


def _target(
    name: str, found: float | None, trained: tuple[float, ...], resample: bool
) -> float | None:
    """The GSD to resample to; None to take the raster as it is."""
    if not trained:
        if resample:
            raise UserError(
                f"{name}: --resample brings it to the GSD that the model was trained on, which the "
                "model does not know. Leave the option out."
            )
        return None
    if found is None:
        if resample:
            raise UserError(
                f"{name}: its GSD is unknown (no CRS, or one in degrees), so it cannot be brought "
                f"to the {_metres(trained)} trained on. Say --gsd METRES."
            )
        return None
    if trained[0] * (1 - GSD_TOLERANCE) <= found <= trained[-1] * (1 + GSD_TOLERANCE):
        return None
    if not resample:
        raise UserError(
            f"{name}: {found:g} m per pixel, but the model was trained on {_metres(trained)}. Say "
            "--resample to bring it there; or --gsd METRES where the raster is wrong about itself."
        )
    target = min(trained, key=lambda each: abs(math.log(each / found)))
    if found > MAX_REFINEMENT * target:
        raise UserError(
            f"{name}: {found:g} m per pixel, more than {MAX_REFINEMENT} times the {target:g} m "
            "trained on; expected imagery that shows roofs. Say --gsd METRES where the raster is "
            "wrong about itself."
        )
    return target


def _metres(trained: tuple[float, ...]) -> str:
    ends = {f"{each:g}" for each in (trained[0], trained[-1])}
    return f"{' to '.join(sorted(ends, key=float))} m per pixel"


@contextmanager
def _resampled(source: DatasetReader, factor: float) -> Iterator[WarpedVRT]:
    """The raster on a grid whose pixels are ``factor`` times as large, over the same ground."""
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
