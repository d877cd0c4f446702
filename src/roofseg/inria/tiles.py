"""The 36 Austin tiles of the Inria Aerial Image Labeling Dataset: brought, checked, put in place.

Maggiori et al. 2017, "Can semantic labeling methods generalize to any city? The Inria aerial image
labeling benchmark": tiles of 5000x5000 px at 0.3 m, 8-bit RGB, with masks of 0 and 255. They come
from a copy that the user has, a folder or an archive, or file by file from a mirror on
huggingface.co.
"""

from __future__ import annotations

import csv
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rasterio.warp
from rasterio.crs import CRS

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file, write_text
from roofseg.inria.archives import require_space
from roofseg.inria.sources import Limits, Source, open_source
from roofseg.tiles.rasters import RASTER_ERRORS, Grid, TilePair, check_tile, open_raster

TERMS = """\
The Inria Aerial Image Labeling Dataset (Maggiori et al. 2017) comes under Inria's terms: it is for
research, and neither its tiles nor patches cut from them may be passed on. The terms are at
https://project.inria.fr/aerialimagelabeling/. Going on is accepting them: if you do not, stop this
now (Ctrl-C) and set another `dataset`."""

NUMBERS = range(1, 37)
SIZE = 5000  # pixels
GSD = 0.3  # metres per pixel
MERIDIAN = -99.0  # degrees of longitude where UTM zone 14 has the easting of 500 km
FOLDERS = {"imgs": "images", "msks": "gt"}  # ours, and the dataset's in its folder train
BYTES = {"imgs": 3, "msks": 1}  # of a pixel; the files are not compressed, or masks only
INCOMING = ".incoming"  # beside the tiles: a file moves from there into its place in one step


@dataclass(frozen=True)
class Known:
    """A row of the manifest: a file's size and SHA-256 (64 hex digits).

    ``revision`` is the commit of the hub's repository that it came from, "" for any other source.
    """

    bytes: int
    sha256: str
    revision: str


def bring(
    folder: Path,
    source: Path | None,
    limits: Limits,
    *,
    numbers: Sequence[int] = NUMBERS,
    size: int = SIZE,
    endpoint: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Put the tiles into ``folder``/imgs and ``folder``/msks, as austinN.tif.

    Image and mask of a tile are checked together before they take their places. What lies there
    already is checked and kept, so a run that broke off is gone on with. The manifest,
    ``folder``/manifest.csv (file, bytes, sha256, revision), says what a file must be; a file that
    it does not name yet is added to it.

    Args:
        folder: of the dataset
        source, limits, endpoint: see `roofseg.inria.sources.open_source`
        numbers: of the tiles
        size: side of a tile in pixels
        say: takes the terms of use, and a line for each tile

    Raises:
        UserError: a tile cannot be had, is not what the dataset's are or what the manifest says;
            the disk is too small; something else lies among the tiles
    """
    say(TERMS)
    names = [f"austin{number}" for number in numbers]
    try:
        manifest = _Manifest(folder / "manifest.csv")
        _refuse_strangers(folder, names)
        here = [name for name in names if not _lacking(folder, name)]
        for name in here:
            manifest.add(_check(name, _places(folder, name), manifest.rows, size, revision=""))
        if here:
            say(f"{folder}: {len(here)} tiles of {len(names)} are in their places already")
        coming = [name for name in names if name not in here]
        if not coming:
            return
        needed = sum(BYTES[kind] for name in coming for kind in _lacking(folder, name)) * size**2
        say(f"{needed / 1e9:.1f} GB to come; as much again goes to DVC's cache")
        with (
            _incoming(folder, needed) as incoming,
            open_source(
                source,
                incoming,
                limits,
                room=needed,
                revision=manifest.revision,
                endpoint=endpoint,
            ) as opened,
        ):
            say(f"from {opened.name}")
            for done, name in enumerate(coming, start=len(here) + 1):
                _bring_tile(folder, name, opened, incoming, manifest, size)
                say(f"{name}: checked, in its place ({done} of {len(names)})")
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}. Mend that and run it again; "
            "tiles that are in their places are kept."
        ) from None


def check_pair(name: str, image: Path, mask: Path, size: int) -> None:
    """Check every pixel and the georeferencing of a tile.

    Raises:
        UserError: the image is not RGB uint8, the mask has another value than 0 and 255, one of the
            two is not ``size`` x ``size`` px at 0.3 m in UTM zone 14 (of whichever datum: the
            dataset's is NAD83, EPSG:26914), or cannot be read to its last pixel
    """
    grid = check_tile(TilePair(name, "", image, mask), patch_size=1)
    if (grid.height, grid.width) != (size, size):
        raise UserError(f"{image}: {grid.width} x {grid.height} px; expected {size} x {size} px.")
    if grid.gsd is None or not math.isclose(grid.gsd, GSD, abs_tol=1e-3):
        found = f"{grid.gsd:g} m per pixel" if grid.gsd else "no GSD in metres"
        raise UserError(f"{image}: its georeferencing gives {found}; expected {GSD} m.")
    if not _in_zone(grid):
        raise UserError(f"{image}: its CRS is {grid.crs}; expected UTM zone 14, EPSG:26914.")
    with open_raster(image) as raster:
        raster.read()
    with open_raster(mask) as raster:
        pixels = raster.read(1)
    wrong = pixels[(pixels != 0) & (pixels != 255)]
    if wrong.size:
        raise UserError(f"{mask}: holds the value {wrong[0]}; expected 0 and 255 alone.")


def _in_zone(grid: Grid) -> bool:
    """Whether the CRS is UTM zone 14, however it is written and of whichever datum."""
    try:
        (longitude,), *_ = rasterio.warp.transform(
            grid.crs, CRS.from_epsg(4326), [500_000], [3_350_000]
        )
    except RASTER_ERRORS:
        return False
    return math.isclose(longitude, MERIDIAN, abs_tol=0.01)


class _Manifest:
    """The manifest in its file, and in ``rows`` by a file's place below the dataset's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = _read_manifest(path) if path.exists() else {}

    @property
    def revision(self) -> str:
        """The hub's commit that files came from, "" where none did."""
        return next((row.revision for row in self.rows.values() if row.revision), "")

    def add(self, rows: Mapping[str, Known]) -> None:
        """Add what is new and write the file, ordered by folder and number of the tile."""
        if rows.keys() <= self.rows.keys():
            return
        self.rows = {**rows, **self.rows}
        lines = ["file,bytes,sha256,revision"]
        for file in sorted(self.rows, key=lambda file: (file[:4], len(file), file)):
            row = self.rows[file]
            lines.append(f"{file},{row.bytes},{row.sha256},{row.revision}")
        write_text(self.path, "\n".join(lines) + "\n")


def _read_manifest(path: Path) -> dict[str, Known]:
    rows = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            try:
                known = Known(int(row["bytes"]), row["sha256"], row["revision"])
                valid = re.fullmatch(r"[0-9a-f]{64}", known.sha256) and known.revision is not None
                rows[row["file"]] = known
            except (KeyError, TypeError, ValueError):
                valid = None
            if not valid:
                raise UserError(
                    f"{path}: found the row {','.join(map(str, row.values()))!r}; expected "
                    "file,bytes,sha256,revision. `git checkout` it, or remove it to have it "
                    "written anew."
                )
    return rows


def _places(folder: Path, name: str) -> dict[str, Path]:
    return {kind: folder / kind / f"{name}.tif" for kind in FOLDERS}


def _lacking(folder: Path, name: str) -> dict[str, Path]:
    return {kind: path for kind, path in _places(folder, name).items() if not path.exists()}


def _refuse_strangers(folder: Path, names: Sequence[str]) -> None:
    """Raise UserError for what is no tile of the dataset: DVC would take it for a part of it."""
    for kind in FOLDERS:
        for path in sorted((folder / kind).glob("*")):
            if path.name not in {f"{name}.tif" for name in names}:
                raise UserError(
                    f"{path}: no tile of the dataset; expected {names[0]}.tif to {names[-1]}.tif. "
                    "Move it elsewhere."
                )


def _check(
    name: str, pair: Mapping[str, Path], known: Mapping[str, Known], size: int, revision: str
) -> dict[str, Known]:
    """Check image and mask, wherever they lie; gives the rows that the manifest has for them."""
    check_pair(name, pair["imgs"], pair["msks"], size)
    rows = {}
    for kind, path in pair.items():
        file = f"{kind}/{name}.tif"
        rows[file] = Known(path.stat().st_size, sha256_file(path), revision)
        expected = known.get(file, rows[file])
        if (rows[file].bytes, rows[file].sha256) != (expected.bytes, expected.sha256):
            raise UserError(
                f"{path}: found {rows[file].bytes} bytes with SHA-256 {rows[file].sha256}; the "
                f"manifest expects {expected.bytes} bytes with SHA-256 {expected.sha256}. Remove "
                "the file and take it from another source."
            )
    return rows


def _bring_tile(
    folder: Path, name: str, source: Source, incoming: Path, manifest: _Manifest, size: int
) -> None:
    places, lacking = _places(folder, name), _lacking(folder, name)
    arrived = {kind: incoming / kind / path.name for kind, path in lacking.items()}
    for kind, path in arrived.items():
        path.parent.mkdir(exist_ok=True)
        source.fetch(f"{FOLDERS[kind]}/{path.name}", path)
    try:
        rows = _check(name, {**places, **arrived}, manifest.rows, size, source.revision)
    except UserError as error:
        raise UserError(f"{error} (It came from {source.name}, and was not kept.)") from None
    # Before the files are there: one without its row would be taken for the user's own.
    manifest.add(rows)
    for kind, path in arrived.items():
        places[kind].parent.mkdir(exist_ok=True)
        path.replace(places[kind])


@contextmanager
def _incoming(folder: Path, needed: int) -> Iterator[Path]:
    """A folder for what is not checked yet, with room for ``needed`` bytes; gone at the end."""
    path = folder / INCOMING
    shutil.rmtree(path, ignore_errors=True)  # left by a run that was killed
    path.mkdir(parents=True)
    try:
        require_space(path, needed, "what is to come")
        (path / ".gitignore").write_text("*\n")
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
