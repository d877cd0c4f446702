"""What is in a dataset and what is wrong with it: every file, every pixel, all problems at once.

`tiles.rasters` reads what the pipeline needs and stops at the first mistake; here all of them are
found before anything depends on the dataset. Rasters are read in parts, so that none has to fit
into memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.intake.spatial_split import find_blocks
from roofseg.recipe.params import PATCH_MULTIPLE
from roofseg.recipe.split import read_nudges, read_split
from roofseg.tiles.rasters import SIDECARS, Grid, TilePair, check_tile, open_raster

# Few tiles have that much building. Above the first, a mask is taken to be inverted.
MAX_BUILDING, MUCH_BUILDING = 0.9, 0.5
# No city has that much; nearly all have so little that an inverted mask shows more.
MAX_BUILDING_OF_ALL = 0.7
MUCH_BLACK = 0.1
# As roofseg.recipe.params has it for the parameter `dataset`.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Pixels in one part that is read, bytes.
PART_BYTES = 64 * 2**20
# A file that claims more bytes of pixels than this, and than `MAX_EXPANSION` times its own size, is
# damaged or a decompression bomb. Deflate packs a thousand to one at best.
BOMB_BYTES = 2**30
MAX_EXPANSION = 2000


@dataclass(frozen=True)
class TileReport:
    """What is known of a tile.

    Attributes:
        name: the files' stem.
        split: "" where split.csv lists it in none.
        grid: None where the headers could not be read or do not agree.
        building: share of the mask's pixels, [0, 1]; None where it could not be read.
        black: share of the image's pixels that are 0 in all bands, [0, 1]; None likewise.
        problems: what keeps it from being used, a sentence each, naming the file.
    """

    name: str
    split: str
    grid: Grid | None
    building: float | None
    black: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What is known of a dataset: its tiles, what is wrong with it, and what looks odd.

    ``problems`` has those of the tiles too. ``stated_gsd`` (metres per pixel) is for tiles that do
    not state their own; None if nobody has said it.
    """

    tiles: tuple[TileReport, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    stated_gsd: float | None = None


def check_name(name: str) -> None:
    """Raise UserError for what is no name of a dataset."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"NAME: found {name!r}; expected letters, digits, '_', '.' and '-', not '.' first."
        )


def read_stated_gsd(folder: Path) -> float | None:
    """The GSD that intake.json in ``folder`` notes, m per pixel; None if there is none.

    Raises UserError if the file is broken.
    """
    path = folder / "intake.json"
    if not path.is_file():
        return None
    try:
        gsd = json.loads(path.read_bytes())["gsd"]
        valid = gsd is None or 0 < gsd < math.inf
    except (ValueError, LookupError, TypeError):
        valid = False
    if not valid:
        raise UserError(
            f"{path}: expected JSON with a GSD, as `roofseg new-dataset` writes it: metres per "
            "pixel above 0, or null. Put back what git has, or remove the file."
        )
    return gsd


def inspect_dataset(folder: Path, *, max_expansion: float = MAX_EXPANSION) -> Report:
    """Read all of the dataset in ``folder``: its small files, headers, and every pixel.

    Raises UserError if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected a dataset with imgs/, msks/, split.csv and "
            "nudges.csv."
        )
    problems: list[str] = []
    images, masks = (find_rasters(folder / kind, problems) for kind in ("imgs", "msks"))
    names = sorted(images.keys() | masks.keys())
    for name in names:
        if name not in images or name not in masks:
            there, lacking = ("imgs", "msks") if name in images else ("msks", "imgs")
            problems.append(
                f"{folder / lacking}: no file for {name}, which is in {there}. Add it, or remove "
                "the other."
            )
    split: dict[str, str] = {}
    nudges: dict[str, tuple[int, int]] = {}
    gsd: float | None = None
    with noted(problems):
        gsd = read_stated_gsd(folder)
    with noted(problems):
        split = read_split(folder)
    with noted(problems):
        nudges = read_nudges(folder)
    for table, listed in (("split.csv", split), ("nudges.csv", nudges)):
        if unknown := sorted(listed.keys() - set(names)):
            problems.append(
                f"{folder / table}: lists {shortened(unknown)}, found in neither imgs nor msks. "
                "Add the files, or remove the lines."
            )
    tiles = [
        inspect_tile(
            TilePair(name, split.get(name, ""), images[name], masks[name]),
            max_expansion=max_expansion,
        )
        for name in names
        if name in images and name in masks
    ]
    problems += find_problems(folder / "msks", tiles)
    return Report(tuple(tiles), tuple(problems), tuple(find_oddities(tiles)), gsd)


def inspect_tile(tile: TilePair, *, max_expansion: float = MAX_EXPANSION) -> TileReport:
    """Read a tile's image and mask, every pixel of them."""
    problems: list[str] = []
    grid = building = black = None
    with noted(problems):
        for path in (tile.image, tile.mask):
            with opened(path, max_expansion):
                pass
        grid = check_tile(tile, PATCH_MULTIPLE)  # the smallest patch
        if grid.transform is not None and grid.transform.is_degenerate:
            raise UserError(
                f"{tile.image}: its transform maps all pixels to one line or point. Mend it, or "
                "remove it (`gdal_edit.py -unsetgt`)."
            )
    with noted(problems):
        black = black_share(tile.image, max_expansion)
        if black == 1:
            raise UserError(
                f"{tile.image}: black throughout; expected imagery. Leave the tile out."
            )
    with noted(problems):
        building = building_share(tile.mask, max_expansion)
        if building > MAX_BUILDING:
            raise UserError(
                f"{tile.mask}: {building:.1%} of it is building; expected {MAX_BUILDING:.0%} at "
                "most, with 0 for background. Is it inverted? Swap its values, or leave the tile "
                "out."
            )
    once = tuple(dict.fromkeys(problems))  # a broken file is found broken by each of the three
    return TileReport(tile.name, tile.split, grid, building, black, once)


def find_problems(masks: Path, tiles: Sequence[TileReport]) -> list[str]:
    """What is wrong with tiles, whose masks come from ``masks``: each and all together."""
    problems = [problem for tile in tiles for problem in tile.problems]
    if not tiles:
        problems.append(f"{masks}: no mask with an image; expected one for each tile.")
    elif all(tile.building == 0 for tile in tiles):
        problems.append(
            f"{masks}: no building in any mask. Do footprints and tiles cover the same ground?"
        )
    shares = [tile.building for tile in tiles if tile.building is not None]
    if shares and (mean := fmean(shares)) > MAX_BUILDING_OF_ALL:
        problems.append(
            f"{masks}: {mean:.1%} of the masks is building; expected {MAX_BUILDING_OF_ALL:.0%} at "
            "most, with 0 for background. Are they inverted? Swap their values."
        )
    return problems


def refuse(problems: Iterable[str]) -> None:
    """Raise one UserError with all of these problems, each once, if there are any."""
    once = list(dict.fromkeys(problems))
    if len(once) == 1:
        raise UserError(once[0])
    if once:
        raise UserError("\n  ".join([f"{len(once)} problems:", *once]))


def black_share(image: Path, max_expansion: float = MAX_EXPANSION) -> float:
    """The share of an image's pixels that are 0 in all bands, [0, 1]; reads all of it.

    Raises UserError if any of it cannot be read.
    """
    with opened(image, max_expansion) as source:
        black = 0
        for part in parts(source):
            black += int((source.read(window=part) == 0).all(axis=0).sum())
        return black / (source.height * source.width)


def building_share(mask: Path, max_expansion: float = MAX_EXPANSION) -> float:
    """The share of a mask's pixels that are building, [0, 1]; reads all of its first band.

    Raises UserError if any of it cannot be read, or holds other values than 0 and one of 1 and 255.
    """
    with opened(mask, max_expansion) as source:
        building, count = 0, 0  # the value, once there is one, and how many pixels have it
        for part in parts(source):
            values = source.read(1, window=part)
            if building == 0 and values.max() in (1, 255):
                building = int(values.max())
            holds = values == building if building else np.zeros(values.shape, bool)
            if not (holds | (values == 0)).all():
                found = sorted({*np.unique(values).tolist(), *([building] if building else [])})
                raise UserError(
                    f"{mask}: holds the values {', '.join(f'{value:g}' for value in found[:6])}"
                    f"{', ...' if len(found) > 6 else ''}; expected 0 for background and one other "
                    "value for building, 1 or 255, throughout the file. A soft mask (resampled, "
                    "anti-aliased or saved as JPEG) needs a threshold first."
                )
            count += int(holds.sum())
        return count / (source.height * source.width)


def find_rasters(folder: Path, problems: list[str]) -> dict[str, Path]:
    """The files of a folder by stem, without hidden files, sidecars and folders.

    What is wrong with the folder is added to ``problems``: it is missing or cannot be listed, a
    link leads nowhere, a name is not UTF-8, or two names differ in suffix or case alone (on some
    file systems they would be one).
    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        problems.append(
            f"{folder}: no such folder; expected one raster for each tile. Put them there, or get "
            "them with `dvc pull` where DVC tracks them."
        )
        return {}
    except OSError as error:
        problems.append(f"{folder}: cannot be listed ({error.strerror}).")
        return {}
    found: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for path in paths:
        if path.name.startswith(".") or path.suffix.lower() in SIDECARS or path.is_dir():
            continue
        if not path.is_file():
            what = "a link that leads nowhere" if path.is_symlink() else "no regular file"
            problems.append(f"{printable(path)}: {what}; expected a raster. Remove or replace it.")
            continue
        stem = unicodedata.normalize("NFC", path.stem)
        if printable(path) != str(path):
            problems.append(f"{printable(path)}: its name is not UTF-8. Rename it.")
        elif other := seen.get(stem.casefold()):
            problems.append(
                f"{path}: {other.name} in the same folder is called {stem} too (apart from suffix "
                "and case); expected one file for each tile. Remove or rename one of them."
            )
        else:
            found[path.stem] = seen[stem.casefold()] = path
    return found


@contextmanager
def opened(path: Path, max_expansion: float = MAX_EXPANSION) -> Iterator[DatasetReader]:
    """Open a raster for reading.

    UserError if it is damaged, holds complex numbers, or claims to hold over 1 GiB of pixels that
    are more than ``max_expansion`` times its size.
    """
    with open_raster(path) as source:
        if not source.count:
            raise UserError(
                f"{path}: no band; expected one raster. Is it a container of several? Take one out "
                "with `gdal_translate`."
            )
        if strange := [kind for kind in source.dtypes if kind.startswith("complex")]:
            raise UserError(f"{path}: holds numbers of type {strange[0]}; expected real numbers.")
        held = source.count * max(np.dtype(kind).itemsize for kind in source.dtypes)
        height, width = source.block_shapes[0]
        claimed = held * max(source.height * source.width, height * width)
        size = sum(file.stat().st_size for file in map(Path, source.files) if file.is_file())
        if claimed > max(BOMB_BYTES, max_expansion * size):
            raise UserError(
                f"{path}: {size:,} bytes that claim to hold {claimed / 2**30:,.0f} GiB of pixels; "
                f"expected at most {max_expansion:g} times the size of the file. It is damaged, or "
                "a decompression bomb. If it is right, say so with --max-expansion."
            )
        yield source


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Add the UserError that ends the block to ``problems``, and go on after it."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


@contextmanager
def system_errors_named() -> Iterator[None]:
    """What the system refuses (no permission, a full disk) is a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename2 or error.filename or 'a file'}: {error.strerror or error}."
        ) from None


def parts(source: DatasetReader) -> Iterator[Window]:
    """Windows that cover a raster: whole blocks of it, `PART_BYTES` at most where blocks allow."""
    height, width = source.block_shapes[0]
    room = PART_BYTES // (source.count * max(np.dtype(kind).itemsize for kind in source.dtypes))
    columns = min(source.width, width * max(1, room // (height * width)))
    rows = min(source.height, height * max(1, room // (height * columns)))
    for row in range(0, source.height, rows):
        for col in range(0, source.width, columns):
            yield Window(col, row, min(columns, source.width - col), min(rows, source.height - row))


def printable(path: Path) -> str:
    """A path as text; bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def table(report: Report) -> str:
    """The tiles of a dataset as lines of text, a column each for what is known of them."""
    heading = ("tile", "split", "size, px", "GSD, m", "CRS", "building", "black", "problems")
    stated = "-" if report.stated_gsd is None else f"{report.stated_gsd:g} (stated)"
    rows = [heading]
    for tile in report.tiles:
        grid = tile.grid
        gsd = "?" if grid is None else f"{grid.gsd:g}" if grid.gsd else stated
        rows.append(
            (
                tile.name,
                tile.split or "-",
                "?" if grid is None else f"{grid.width} x {grid.height}",
                gsd,
                "?" if grid is None else _named(grid.crs),
                "?" if tile.building is None else f"{tile.building:.1%}",
                "?" if tile.black is None else f"{tile.black:.1%}",
                str(len(tile.problems) or "-"),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _named(crs: CRS | None) -> str:
    """A CRS in a word or two: its code, or its name where it has none."""
    if crs is None:
        return "-"
    text = crs.to_string()
    return text.split('"')[1] if '"' in text else text


def find_oddities(tiles: Sequence[TileReport]) -> Iterator[str]:
    """What is allowed and yet worth a look."""
    if unlisted := [tile.name for tile in tiles if not tile.split]:
        yield f"split.csv lists no split for {shortened(unlisted)}: left out"
    if full := [tile.name for tile in tiles if (tile.building or 0) > MUCH_BUILDING]:
        yield f"more than {MUCH_BUILDING:.0%} of {shortened(full)} is building: are masks inverted?"
    if empty := [tile.name for tile in tiles if tile.building == 0]:
        yield f"no building in {shortened(empty)}"
    if dark := [tile.name for tile in tiles if MUCH_BLACK < (tile.black or 0) < 1]:
        yield f"more than {MUCH_BLACK:.0%} of {shortened(dark)} is black: without data?"
    grids = {tile.name: tile.grid for tile in tiles if tile.grid is not None}
    if len(scales := {f"{grid.gsd:g}" for grid in grids.values() if grid.gsd}) > 1:
        found = shortened(sorted(scales, key=float))
        yield f"tiles differ in GSD ({found} m), and so roofs in their pixels"
    splits = {tile.name: tile.split for tile in tiles if tile.split}
    try:
        blocks = find_blocks({name: grids[name] for name in splits if name in grids})
    except UserError as error:
        yield str(error)
        return
    for block in blocks:
        if len({splits[name] for name in block}) > 1:
            near = shortened([f"{name} ({splits[name]})" for name in block])
            yield f"tiles of different splits touch or overlap, which flatters: {near}"


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Names with commas, and how many more there are than ``most``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
