"""Read rasters as model input: 8-bit RGB at a GSD that the model was trained on, and a valid mask.

An input is anything that GDAL opens: files, VRTs, https:// and s3://. A raster that cannot be model
input raises a UserError that names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window

from roofseg.core.errors import UserError, raise_all
from roofseg.core.files import check_file_name
from roofseg.core.images import Image
from roofseg.tiles.bands import RgbBands, describe_bands, find_rgb, read_rgb
from roofseg.tiles.grid import Grid, check_square, is_square, read_grid
from roofseg.tiles.orientation import orientation
from roofseg.tiles.rasters import is_remote, name_parts, open_raster, raster_errors_named

# The GSD of an input may differ from the GSDs trained on by this share; augmentation varies the
# scale by more.
GSD_TOLERANCE = 0.05
# Imagery may be resampled to pixels this many times smaller. At 3 m per pixel, a roof of 10 m is
# 3 px wide; refining it to 0.3 m would cost 100 times the pixels and show nothing new.
MAX_REFINEMENT = 10
RASTERS = {".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".img"}
# Resampling takes place in pixels of the raster, and GDAL's warper needs a CRS for them.
PIXELS = CRS.from_wkt('LOCAL_CS["pixels",UNIT["pixel",1]]')
# Pixels of the raster that are resampled at once, so that memory does not grow with their number.
RESAMPLED_AT_ONCE = 2**22


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
        grid: Grid,
        *,
        gsd: float | None,
        scale: Sequence[float] | None,
        notes: Sequence[str],
    ) -> None:
        self.name, self.gsd, self.notes = name, gsd, list(notes)
        self.height, self.width = grid.height, grid.width
        self.crs = grid.crs if grid.transform else None
        self.transform: Affine = grid.transform or Affine.identity()
        self._source, self._bands, self._scale = source, bands, scale
        self._factors = source.height / grid.height, source.width / grid.width

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
        with raster_errors_named(self.name):
            if self._factors == (1, 1):
                window = Window(col, row, cols, rows)
                pixels, valid = read_rgb(self._source, self._bands, window)
            else:
                pixels, valid = self._read_resampled(row, rows, col, cols)
        if self._scale is not None or pixels.dtype != np.uint8:
            low, high = self._scale or (0, 255)
            scaled = (pixels.astype(np.float64) - low) * (255 / (high - low))
            pixels = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        image[~valid] = 0
        return image, valid

    def _read_resampled(
        self, row: int, rows: int, col: int, cols: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """As `read_rgb`, for a rectangle of the new grid: pixels without data have no weight."""
        down, right = self._factors
        method = Resampling.average if min(down, right) >= 1 else Resampling.cubic
        at_once = max(1, int(RESAMPLED_AT_ONCE / (cols * right * down)))
        strips = []
        for start in range(row, row + rows, at_once):
            count = min(at_once, row + rows - start)
            top, bottom = _source_range(start, count, down, self._source.height)
            first, last = _source_range(col, cols, right, self._source.width)
            window = Window(first, top, last - first, bottom - top)
            pixels, valid = read_rgb(self._source, self._bands, window)
            if pixels.dtype != np.uint8:
                pixels = pixels.astype(np.float32)
            alpha: dict[str, Any] = {}
            if not valid.all():  # a band more takes a third longer
                mask = (valid * 255).astype(pixels.dtype)
                pixels = np.concatenate([pixels, mask[None]])
                alpha = {"src_alpha": 4, "dst_alpha": 4}
                alpha |= {"SRC_ALPHA_MAX": "255", "DST_ALPHA_MAX": "255"}
            strip = np.zeros((len(pixels), count, cols), pixels.dtype)
            reproject(
                pixels,
                strip,
                src_transform=Affine.translation(first, top),
                dst_transform=Affine.scale(right, down) @ Affine.translation(col, start),
                src_crs=PIXELS,
                dst_crs=PIXELS,
                resampling=method,
                **alpha,
            )
            new_valid = strip[3] > 0 if alpha else np.ones((count, cols), bool)
            strips.append((strip[:3], new_valid))
        images, valids = zip(*strips, strict=True)
        return np.concatenate(images, axis=1), np.concatenate(valids)


def _source_range(start: int, count: int, factor: float, size: int) -> tuple[int, int]:
    """The first pixel of a raster that ``count`` resampled ones depend on, and the one after."""
    margin = 2 * max(1, factor) + 1  # half the width of the cubic kernel, and one for rounding
    first = max(0, math.floor(start * factor - margin))
    return first, min(size, math.ceil((start + count) * factor + margin))


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
            If the raster states oblong pixels, this is the square root of their area.
        resample: resample a raster of another GSD, or of oblong pixels, to square pixels of the
            nearest GSD trained on (average of finer pixels, cubic interpolation of coarser ones).
            The new grid covers the same ground.
        scale: the values (low, high) that become 0 and 255; needed where pixels are not 8-bit.

    Raises:
        UserError: the raster cannot be opened; it has no red, green and blue
            (`roofseg.tiles.bands.find_rgb`); its pixels are not 8-bit and no ``scale`` is given;
            its GSD is not one trained on, or its pixels are oblong, and ``resample`` is not set;
            its pixels are more than `MAX_REFINEMENT` times coarser than those trained on, or
            sheared; or ``resample`` is set and one of the GSDs is unknown
    """
    with open_raster(name) as source:
        bands = find_rgb(name, source)
        if bands.dtype != "uint8" and scale is None:
            raise UserError(
                f"{name}: {describe_bands(source)}; expected 8-bit RGB, as trained on. Set which "
                "values become 0 and 255 with --scale LOW HIGH, the same as for the training "
                "tiles."
            )
        notes = [note for note in (bands.note, unused_placement(source)) if note]
        if (turned := orientation(source)) != 1:
            notes.append(
                f"its orientation tag ({turned}) is not used: viewers show it turned, and the "
                "result lies on its pixels as stored"
            )
        grid = read_grid(source)
        # A GSD of 0, which a broken transform or unit gives, counts as unknown.
        source_gsd = gsd or grid.gsd or None
        target = _target_gsd(name, grid, source_gsd, trained, resample)
        if target is None:
            if source_gsd is None and trained:
                notes.append(
                    f"its GSD is unknown; taken as the {_metres(trained)} trained on (--gsd)"
                )
        else:
            assert source_gsd is not None
            sides = _spelled(grid.sides(source_gsd))
            notes.append(f"resampled from {sides} to {target:g} m per pixel")
            # The raster's own GSD is rounded, so that equal ones compare as equal.
            grid, source_gsd = _resampled(grid, grid.sides(gsd), target), target
        yield Imagery(name, source, bands, grid, gsd=source_gsd, scale=scale, notes=notes)


def unused_placement(source: DatasetReader) -> str:
    """A note that control points or RPCs are not used, so that the raster lies nowhere; or ""."""
    if read_grid(source).transform is not None:
        return ""
    if source.gcps[0]:
        unused, command = "control points", "gdalwarp"
    elif source.rpcs:
        unused, command = "RPCs (rational polynomial coefficients)", "gdalwarp -rpc"
    else:
        return ""
    return (
        f"its {unused} are not used, so the result has no georeference; warp it first, for example "
        f"with `{command} -t_srs EPSG:CODE` (the code of its UTM zone)"
    )


def list_inputs(names: Sequence[str]) -> list[str]:
    """List the rasters to predict: files and addresses as given, and the rasters in each folder.

    Rasters in a folder are found by suffix and sorted by name; subfolders are not entered.

    Raises:
        UserError: a folder holds no raster; a name is empty or not valid (`check_file_name`), or no
            file has it
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
        check_file_name(name)
    raise_all(
        f"{file}: no such file or folder. Correct the path."
        for name in inputs
        if not is_remote(name) and (file := _missing_file(name))
    )
    return inputs


def _missing_file(name: str) -> str:
    """The file that a name means, if there is none; GDAL may know names without a file."""
    parts = name_parts(name)
    if len(parts) == 1:
        return "" if ":" in name or Path(name).exists() else name
    files = [part for part in parts if Path(part).suffix]
    return "" if not files or any(Path(part).exists() for part in parts) else files[0]


def file_name(name: str) -> str:
    """The last part of a raster's path or address, without the query of an address.

    For one of several rasters in a file (`name_parts`), the file's name and the raster's.
    """
    if is_remote(name):
        return PurePosixPath(urlsplit(name).path).name
    parts = name_parts(name)
    if len(parts) == 1:
        return Path(name).name
    return ":".join(Path(part).name if Path(part).is_file() else part for part in parts)


def output_stem(name: str) -> str:
    """The name, without suffix, of the outputs for a raster: from its file name."""
    if is_remote(name) or len(parts := name_parts(name)) == 1:
        return Path(file_name(name)).stem
    plain = [Path(part).stem if Path(part).is_file() else part for part in parts]
    return "_".join(re.sub(r"[^\w.-]+", "_", part).strip("_") for part in plain)


def _target_gsd(
    name: str, grid: Grid, gsd: float | None, trained: tuple[float, ...], resample: bool
) -> float | None:
    """The GSD to resample to from ``gsd`` (None if unknown); None to take the raster as it is."""
    if not trained and resample:
        raise UserError(
            f"{name}: --resample needs the GSD that the model was trained on, and the model "
            "does not state it. Leave the option out."
        )
    if gsd is None and resample:
        raise UserError(
            f"{name}: its GSD is unknown (it states no place on Earth), so it cannot be "
            f"resampled to the {_metres(trained)} trained on. Give --gsd METRES."
        )
    mends = bool(gsd and trained) and not grid.is_sheared  # what --resample can do
    remedy = "Use --resample, or warp it" if mends else "Warp it"
    if not (resample and mends):
        check_square(name, grid, gsd, remedy=remedy)
    if gsd is None or not trained:
        return None
    sides = grid.sides(gsd)
    target = min(trained, key=lambda candidate: abs(math.log(candidate / gsd)))
    if max(sides) > MAX_REFINEMENT * target:
        raise UserError(
            f"{name}: {_spelled(sides)} m per pixel, more than {MAX_REFINEMENT} times the "
            f"{target:g} m trained on; expected imagery that shows roofs. Give --gsd METRES if the "
            "raster states a wrong one."
        )
    near = trained[0] * (1 - GSD_TOLERANCE) <= gsd <= trained[-1] * (1 + GSD_TOLERANCE)
    if near and is_square(*sides):
        return None
    if not resample:
        raise UserError(
            f"{name}: {gsd:g} m per pixel, but the model was trained on {_metres(trained)}. Use "
            "--resample, or give --gsd METRES if the raster states a wrong one."
        )
    return target


def _metres(trained: tuple[float, ...]) -> str:
    ends = {f"{gsd:g}" for gsd in (trained[0], trained[-1])}
    return f"{' to '.join(sorted(ends, key=float))} m per pixel"


def _spelled(sides: tuple[float, float]) -> str:
    """The sides of a pixel in words: one number if it is square."""
    x, y = sides
    return f"{math.sqrt(x * y):g}" if is_square(x, y) else f"{x:g} x {y:g}"


def _resampled(grid: Grid, sides: tuple[float, float], target: float) -> Grid:
    """A grid over the same ground whose pixels have sides of ``target`` instead of ``sides``."""
    width = max(1, round(grid.width * sides[0] / target))
    height = max(1, round(grid.height * sides[1] / target))
    scale = Affine.scale(grid.width / width, grid.height / height)
    if grid.transform is None:
        return Grid(height, width, None, scale)
    return Grid(height, width, grid.crs, grid.transform @ scale)
