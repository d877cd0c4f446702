"""Fetch the 36 Austin tiles of the Inria Aerial Image Labeling Dataset, and check them.

The tiles have 5000 x 5000 px at 0.3 m, 8-bit RGB, and masks of 0 and 255 (Maggiori et al. 2017,
"Can semantic labeling methods generalize to any city? The Inria aerial image labeling benchmark").
They come from a folder with the unpacked dataset, or file by file from a mirror on huggingface.co.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import rasterio.warp
from pydantic import BaseModel, Field
from rasterio.crs import CRS

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file, write_rows
from roofseg.inria.sources import TileSource, open_source
from roofseg.tiles.grid import Grid
from roofseg.tiles.rasters import RASTER_ERRORS, open_raster
from roofseg.tiles.tile import TilePair, check_tile

TERMS = """\
The Inria Aerial Image Labeling Dataset (Maggiori et al. 2017) comes under Inria's terms: it is for
research, and neither its tiles nor patches cut from them may be passed on. The terms are at
https://project.inria.fr/aerialimagelabeling/. By going on you accept them; if you do not, stop now
(Ctrl-C) and set another `dataset`."""

NUMBERS = range(1, 37)
SIZE = 5000  # pixels
GSD = 0.3  # metres per pixel
MERIDIAN = -99.0  # degrees of longitude; the easting in UTM zone 14 is 500 km there
FOLDERS = {"imgs": "images", "msks": "gt"}  # our folders, and those in the dataset's folder train
BYTES = {"imgs": 3, "msks": 1}  # per pixel, at most: images are not compressed, masks may be
INCOMING = ".incoming"  # a folder beside the tiles; a rename moves each file into its place


class ManifestRow(BaseModel):
    """A row of the manifest: a file's size in bytes and its SHA-256.

    ``revision`` is the commit of the hub's repository that the file came from; it is "" for a file
    from another source.
    """

    bytes: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    revision: str


def fetch_tiles(
    folder: Path,
    source: Path | None,
    *,
    numbers: Sequence[int] = NUMBERS,
    size: int = SIZE,
    endpoint: str | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Put the tiles into ``folder``/imgs and ``folder``/msks, as austinN.tif.

    The image and mask of a tile are checked together before they are moved into these folders.
    Tiles that are already there are checked and kept, so a run continues where an earlier one
    stopped. The manifest, ``folder``/manifest.csv (file, bytes, sha256, revision), has the expected
    size and SHA-256 of each file; files that it does not list yet are added to it.

    Args:
        folder: the dataset's folder
        source, endpoint: see `roofseg.inria.sources.open_source`
        numbers: the numbers of the tiles
        size: side of a tile in pixels
        report: called with the terms of use, and with a line for each tile

    Raises:
        UserError: a tile cannot be read or downloaded, or differs from the dataset's format or from
            its row in the manifest; the disk is too small; another file lies among the tiles
    """
    report(TERMS)
    names = [f"austin{number}" for number in numbers]
    manifest = _Manifest(folder / "manifest.csv")
    _check_no_other_files(folder, names)
    present = [name for name in names if not _missing_files(folder, name)]
    for name in present:
        manifest.add(_check_tile(name, _paths(folder, name), manifest.rows, size, revision=""))
    if present:
        report(f"{folder}: {len(present)} of {len(names)} tiles are already in place")
    missing = [name for name in names if name not in present]
    if not missing:
        return
    pixels = size**2
    needed = pixels * sum(BYTES[kind] for name in missing for kind in _missing_files(folder, name))
    report(f"fetching {needed / 1e9:.1f} GB; DVC's cache will need as much again")
    with _incoming_folder(folder, needed) as incoming:
        opened = open_source(
            source, incoming / "hub", revision=manifest.revision, endpoint=endpoint
        )
        report(f"source: {opened.name}")
        for done, name in enumerate(missing, start=len(present) + 1):
            _fetch_tile(folder, name, opened, incoming, manifest, size)
            report(f"{name}: checked and in place ({done} of {len(names)})")


def check_pair(name: str, image: Path, mask: Path, size: int) -> None:
    """Check every pixel and the georeferencing of a tile.

    Raises:
        UserError: the image is not 8-bit RGB; the mask has a value other than 0 and 255; or one of
            the two is not ``size`` x ``size`` px at 0.3 m in UTM zone 14 of any datum (the dataset
            has NAD83, EPSG:26914), or cannot be read to its last pixel
    """
    grid, _ = check_tile(TilePair(name, "", image, mask), patch_size=1)
    if (grid.height, grid.width) != (size, size):
        raise UserError(f"{image}: {grid.width} x {grid.height} px; expected {size} x {size} px.")
    if grid.gsd is None or not math.isclose(grid.gsd, GSD, abs_tol=1e-3):
        found = f"{grid.gsd:g} m per pixel" if grid.gsd else "no GSD in metres"
        raise UserError(f"{image}: its georeferencing gives {found}; expected {GSD} m.")
    if not _in_utm_14(grid):
        raise UserError(f"{image}: its CRS is {grid.crs}; expected UTM zone 14, EPSG:26914.")
    with open_raster(image) as raster:
        raster.read()
    with open_raster(mask) as raster:
        pixels = raster.read(1)
    wrong = pixels[(pixels != 0) & (pixels != 255)]
    if wrong.size:
        raise UserError(f"{mask}: holds the value {wrong[0]}; expected 0 and 255 only.")


def _in_utm_14(grid: Grid) -> bool:
    """Whether the CRS is UTM zone 14, whatever its datum and notation."""
    try:
        (longitude,), *_ = rasterio.warp.transform(
            grid.crs, CRS.from_epsg(4326), [500_000], [3_350_000]
        )
    except RASTER_ERRORS:
        return False
    return math.isclose(longitude, MERIDIAN, abs_tol=0.01)


class _Manifest:
    """The manifest: its file, and its ``rows`` by path relative to the dataset's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = _read_manifest(path) if path.exists() else {}

    @property
    def revision(self) -> str:
        """The hub's commit that files came from; "" if no file came from the hub."""
        return next((row.revision for row in self.rows.values() if row.revision), "")

    def add(self, rows: Mapping[str, ManifestRow]) -> None:
        """Add rows for new files, and write the file sorted by folder and tile number."""
        if rows.keys() <= self.rows.keys():
            return
        self.rows = {**rows, **self.rows}
        files = sorted(self.rows, key=lambda file: (file.split("/")[0], len(file), file))
        lines = ([file, *self.rows[file].model_dump().values()] for file in files)
        write_rows(self.path, ("file", "bytes", "sha256", "revision"), lines)


def _read_manifest(path: Path) -> dict[str, ManifestRow]:
    rows = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            try:
                rows[row["file"]] = ManifestRow.model_validate(row)
            except (KeyError, ValueError):
                raise UserError(
                    f"{path}: found the row {','.join(map(str, row.values()))!r}; expected "
                    "file,bytes,sha256,revision. Restore the file with `git checkout`, or remove "
                    "it and run the stage again to write a new one."
                ) from None
    return rows


def _paths(folder: Path, name: str) -> dict[str, Path]:
    return {kind: folder / kind / f"{name}.tif" for kind in FOLDERS}


def _missing_files(folder: Path, name: str) -> dict[str, Path]:
    return {kind: path for kind, path in _paths(folder, name).items() if not path.exists()}


def _check_no_other_files(folder: Path, names: Sequence[str]) -> None:
    """Raise UserError for a file that is no tile, since DVC would track it with the dataset."""
    for kind in FOLDERS:
        for path in sorted((folder / kind).glob("*")):
            if path.name not in {f"{name}.tif" for name in names}:
                raise UserError(
                    f"{path}: not a tile of the dataset; expected {names[0]}.tif to "
                    f"{names[-1]}.tif. Move it elsewhere."
                )


def _check_tile(
    name: str,
    pair: Mapping[str, Path],
    manifest: Mapping[str, ManifestRow],
    size: int,
    revision: str,
) -> dict[str, ManifestRow]:
    """Check the format of image and mask, and compare them with their rows of the manifest.

    Returns the rows that describe the two files; they have the given revision.
    """
    check_pair(name, pair["imgs"], pair["msks"], size)
    rows = {}
    for kind, path in pair.items():
        file = f"{kind}/{name}.tif"
        rows[file] = ManifestRow(
            bytes=path.stat().st_size, sha256=sha256_file(path), revision=revision
        )
        expected = manifest.get(file, rows[file])
        if (rows[file].bytes, rows[file].sha256) != (expected.bytes, expected.sha256):
            raise UserError(
                f"{path}: found {rows[file].bytes} bytes with SHA-256 {rows[file].sha256}; the "
                f"manifest expects {expected.bytes} bytes with SHA-256 {expected.sha256}. Get the "
                "file from another source."
            )
    return rows


def _fetch_tile(
    folder: Path, name: str, source: TileSource, incoming: Path, manifest: _Manifest, size: int
) -> None:
    """Fetch the missing files of a tile, check the tile, record it and move the files in place."""
    targets = _paths(folder, name)
    arrived = {
        kind: incoming / kind / path.name for kind, path in _missing_files(folder, name).items()
    }
    for kind, path in arrived.items():
        path.parent.mkdir(exist_ok=True)
        source.fetch(f"{FOLDERS[kind]}/{path.name}", path)
    try:
        rows = _check_tile(name, {**targets, **arrived}, manifest.rows, size, source.revision)
    except UserError as error:
        raise UserError(
            f"{error} (Files of this tile that came from {source.name} were not kept.)"
        ) from None
    # Record the files before the move: one without a row would look like one that the user added.
    manifest.add(rows)
    for kind, path in arrived.items():
        targets[kind].parent.mkdir(exist_ok=True)
        path.replace(targets[kind])


@contextmanager
def _incoming_folder(folder: Path, needed: int) -> Iterator[Path]:
    """Make a folder for files that are not checked yet, and remove it at the end.

    Raises UserError if its disk has fewer than ``needed`` bytes free.
    """
    path = folder / INCOMING
    shutil.rmtree(path, ignore_errors=True)  # left by a run that was killed
    path.mkdir(parents=True)
    try:
        free = shutil.disk_usage(path).free
        if free < needed:
            raise UserError(
                f"{folder}: {free / 1e9:.1f} GB are free; the missing tiles need "
                f"{needed / 1e9:.1f} GB. Free some space there, or work on a larger disk."
            )
        (path / ".gitignore").write_text("*\n")
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
