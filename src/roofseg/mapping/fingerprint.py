"""Recognise an input that has changed since its output was made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from roofseg.tiles.rasters import name_parts, open_raster


def fingerprint(source: str) -> str:
    """A hash of what tells a local input from another one: 16 hex digits; "" if it is not local.

    It covers the name, size and modification time of every file that GDAL reads for the input (the
    sources of a VRT, masks, overviews, world files), and of an .aux.xml only the georeference, no
    data and colours that it gives: QGIS writes statistics into it when it shows the raster.

    Raises UserError if the input, or a VRT among its sources, cannot be read.
    """
    if not _own_file(source):
        return ""
    with open_raster(source) as raster:
        header = [raster.crs and raster.crs.to_wkt(), raster.transform, raster.nodatavals]
        header += [raster.colorinterp, raster.mask_flag_enums]
    files = sorted(input_files(source))
    states = [_state(Path(name)) for name in files if not name.endswith(".aux.xml")]
    return hashlib.sha256(repr((header, states)).encode()).hexdigest()[:16]


def input_files(source: str) -> set[str]:
    """The names of all files that GDAL reads for a raster; for a VRT, those of its sources too.

    Raises UserError if the raster, or a VRT among its sources, cannot be read.
    """
    file = _own_file(source)
    files = [*_files(source), *([file] if file else [])]
    seen: set[str] = set()
    while new := set(files) - seen:
        seen |= new
        files = [inside for name in new if _is_vrt(name) for inside in _files(name)]
    return seen


def _own_file(source: str) -> str | None:
    """The local file that a raster's name names; None for an address."""
    return next((part for part in name_parts(source) if Path(part).exists()), None)


def _is_vrt(name: str) -> bool:
    return name.lower().endswith(".vrt") and Path(name).is_file()


def _files(source: str) -> list[str]:
    with open_raster(source) as raster:
        files: list[str] = raster.files
    return files


def _state(path: Path) -> tuple[str, int, int]:
    """The name, size in bytes and modification time in ns; zeros for a file that is not local."""
    try:
        stat = path.stat()
    except OSError:
        return path.name, 0, 0
    return path.name, stat.st_size, stat.st_mtime_ns
