"""Inspect a dataset: every file, every pixel, all problems at once.

`tiles.tile` reads what the pipeline needs and stops at the first error. This module finds all
errors before anything depends on the dataset. Images are read in parts, so that they need not fit
into memory; masks, one byte per pixel, must.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from roofseg.core.errors import UserError, collect_errors
from roofseg.core.images import UNKNOWN, Image
from roofseg.core.messages import gathered, shortened
from roofseg.core.progress import Progress, silent
from roofseg.cutting.find import find_rasters
from roofseg.intake.spatial_split import find_blocks
from roofseg.recipe.params import PATCH_MULTIPLE
from roofseg.recipe.split import read_nudges, read_split
from roofseg.tiles.grid import Grid
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.tile import TilePair, check_tile, read_tile_mask
from roofseg.tiles.unknown import read_unknown

# Above the first share of building a mask is taken as inverted; above the second, a warning asks.
MAX_BUILDING, MUCH_BUILDING = 0.9, 0.5
# Largest share of building over all masks: cities have less, and inverted masks nearly always more.
MAX_BUILDING_OF_ALL = 0.7
GSD_DIFFERENCE = 0.01  # share above which tiles count as different in GSD
MUCH_BLACK = 0.1  # share of black pixels above which an image may lack data
# The parameter `dataset` in roofseg.recipe.params has the same pattern.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Rasters are read in parts of at most this many bytes.
PART_BYTES = 64 * 2**20
# A file that claims more bytes of pixels than this and more than `MAX_EXPANSION` times its own size
# is damaged or a decompression bomb. Deflate compresses a thousand to one at best.
BOMB_BYTES = 2**30
MAX_EXPANSION = 2000


@dataclass(frozen=True)
class TileReport:
    """The result of inspecting a tile.

    Attributes:
        name: the files' stem.
        split: "" if split.csv does not list the tile.
        grid: None if the headers cannot be read or do not agree.
        building: share of the mask's labelled pixels, [0, 1]; None if the mask cannot be read.
        black: share of the image's labelled pixels that are 0 in all bands, [0, 1]; None if the
            image cannot be read.
        problems: reasons why the tile cannot be used: messages that name the file.
        note: which bands of the image are read (see `roofseg.tiles.bands.RgbBands`), or "".
        labelled: share of the mask's pixels that are not unknown, [0, 1].
    """

    name: str
    split: str
    grid: Grid | None
    building: float | None
    black: float | None
    problems: tuple[str, ...]
    note: str = ""
    labelled: float = 1.0


@dataclass(frozen=True)
class Report:
    """The result of inspecting a dataset: its tiles, problems, and warnings.

    ``problems`` includes the problems of the tiles. ``stated_gsd`` is the GSD (metres per pixel) of
    tiles without a georeference; None if it is unknown.
    """

    tiles: tuple[TileReport, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    stated_gsd: float | None = None


def check_name(name: str) -> None:
    """Raise UserError if ``name`` is not valid as the name of a dataset."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"NAME: found {name!r}; expected letters, digits, '_', '.' and '-', with a letter or "
            "digit first."
        )


def read_stated_gsd(folder: Path) -> float | None:
    """Read the GSD in ``folder``/intake.json, metres per pixel; None if there is none.

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
            "pixel above 0, or null. Restore the file from git, or remove it."
        )
    return gsd


def inspect_dataset(
    folder: Path, *, max_expansion: float = MAX_EXPANSION, progress: Progress = silent
) -> Report:
    """Inspect the dataset in ``folder``: its tables, and the header and pixels of every raster.

    ``progress`` shows how many tiles are inspected. Without ``imgs/`` or ``msks/``, only the tables
    are inspected.

    Raises UserError if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected a dataset with imgs/, msks/, split.csv and "
            "nudges.csv."
        )
    problems: list[str] = []
    images, masks = (find_rasters(folder / kind, problems) for kind in ("imgs", "msks"))
    split: dict[str, str] = {}
    nudges: dict[str, tuple[int, int]] = {}
    gsd: float | None = None
    value: float | None = None
    with collect_errors(problems):
        gsd = read_stated_gsd(folder)
    with collect_errors(problems):
        value = read_unknown(folder / "msks")
    with collect_errors(problems):
        split = read_split(folder)
    with collect_errors(problems):
        nudges = read_nudges(folder)
    if not all((folder / kind).is_dir() for kind in ("imgs", "msks")):
        return Report((), tuple(problems), (), gsd)
    names = sorted(images.keys() | masks.keys())
    for name in names:
        if name not in images or name not in masks:
            present, missing = ("imgs", "msks") if name in images else ("msks", "imgs")
            problems.append(
                f"{folder / missing}: no file for the tile {name}, which is in {present}. Add it, "
                "or remove the other file."
            )
    for table, listed in (("split.csv", split), ("nudges.csv", nudges)):
        if unknown := sorted(listed.keys() - set(names)):
            problems.append(
                f"{folder / table}: lists {shortened(unknown)}, but imgs and msks have no such "
                "file. Add the files, or remove the lines."
            )
    pairs = [
        TilePair(name, split.get(name, ""), images[name], masks[name], value)
        for name in names
        if name in images and name in masks
    ]
    tiles = [
        inspect_tile(pair, max_expansion=max_expansion)
        for pair in progress(pairs, "Checking tiles")
    ]
    problems += find_problems(folder / "msks", tiles)
    return Report(tuple(tiles), tuple(problems), tuple(find_warnings(tiles)), gsd)


def inspect_tile(tile: TilePair, *, max_expansion: float = MAX_EXPANSION) -> TileReport:
    """Inspect the headers and all pixels of a tile's image and mask."""
    problems: list[str] = []
    of_mask: list[str] = []
    grid = building = black = None
    mask: Image | None = None
    labelled, note = 1.0, ""
    with collect_errors(of_mask):
        with open_bounded(tile.mask, max_expansion):
            mask = read_tile_mask(tile.mask, tile.unknown)
        labelled = float((mask != UNKNOWN).mean())
        building = _building_share(mask)
        if labelled == 0:
            raise UserError(f"{tile.mask}: no pixel of it is labelled. Leave the tile out.")
        if building > MAX_BUILDING:
            raise UserError(
                f"{tile.mask}: {building:.1%} of it is building; expected {MAX_BUILDING:.0%} at "
                "most, with 0 for background. Is it inverted? Swap its values, or leave the tile "
                "out."
            )
    with collect_errors(problems):
        for path in (tile.image, tile.mask):
            with open_bounded(path, max_expansion):
                pass
        grid, note = check_tile(tile, PATCH_MULTIPLE)  # the smallest patch
        if grid.transform is not None and grid.transform.is_degenerate:
            raise UserError(
                f"{tile.image}: its transform maps all pixels to one line or point. Correct it, or "
                "remove it (`gdal_edit.py -unsetgt`)."
            )
    with collect_errors(problems):
        known = mask != UNKNOWN if grid and mask is not None and labelled < 1 else None
        black = black_share(tile.image, max_expansion, known)
        if black == 1:
            raise UserError(
                f"{tile.image}: all pixels are black; expected imagery. Leave the tile out."
            )
    once = tuple(dict.fromkeys([*problems, *of_mask]))  # all three blocks report a broken file
    return TileReport(tile.name, tile.split, grid, building, black, once, note, labelled)


def find_problems(masks: Path, tiles: Sequence[TileReport]) -> list[str]:
    """The problems of each tile, and of all masks together, which come from ``masks``."""
    problems = [problem for tile in tiles for problem in tile.problems]
    if not tiles:
        problems.append(f"{masks}: no mask belongs to an image; expected one for each tile.")
    elif all(tile.building == 0 for tile in tiles):
        unknown = any(tile.labelled < 1 for tile in tiles)
        problems.append(
            f"{masks}: no building in any mask. Do footprints and tiles cover the same ground?"
            f"{' Or does the value for unknown pixels mark buildings?' if unknown else ''}"
        )
    shares = [tile.building for tile in tiles if tile.building is not None]
    if shares and (mean := fmean(shares)) > MAX_BUILDING_OF_ALL:
        problems.append(
            f"{masks}: {mean:.1%} of the masks is building; expected {MAX_BUILDING_OF_ALL:.0%} at "
            "most, with 0 for background. Are they inverted? Swap their values."
        )
    return problems


def black_share(
    image: Path,
    max_expansion: float = MAX_EXPANSION,
    among: npt.NDArray[np.bool_] | None = None,
) -> float:
    """The share of an image's pixels that are 0 in all bands, [0, 1]; reads all of it.

    It is the share of the pixels ``among``, (H, W) bool; 0 if there are none. Raises UserError if
    part of the image cannot be read.
    """
    with open_bounded(image, max_expansion) as source:
        black = 0
        for part in parts(source):
            dark = (source.read(window=part) == 0).all(axis=0)
            black += int((dark if among is None else dark & among[part.toslices()]).sum())
        total = source.height * source.width if among is None else int(among.sum())
        return black / max(1, total)


def building_share(mask: Path, max_expansion: float = MAX_EXPANSION) -> float:
    """The share of a mask's pixels that are building, [0, 1]; reads all of its first band.

    Raises UserError if part of it cannot be read, or if its values are not {0, 1} or {0, 255}.
    """
    with open_bounded(mask, max_expansion):
        return _building_share(read_tile_mask(mask))


def _building_share(mask: Image) -> float:
    """The share of a mask's labelled pixels that are building, [0, 1]; 0 if none is labelled."""
    labelled = int(np.count_nonzero(mask != UNKNOWN))
    return int(np.count_nonzero(mask == 1)) / max(1, labelled)


@contextmanager
def open_bounded(path: Path, max_expansion: float = MAX_EXPANSION) -> Iterator[DatasetReader]:
    """Open a raster as `open_raster` does, unless it is a decompression bomb.

    Raises UserError as `open_raster` does, and if the header claims over 1 GiB of pixels and more
    than ``max_expansion`` times the size of the file.
    """
    with open_raster(path) as source:
        pixel_bytes = source.count * max(np.dtype(kind).itemsize for kind in source.dtypes)
        height, width = source.block_shapes[0]
        claimed = pixel_bytes * max(source.height * source.width, height * width)
        size = sum(file.stat().st_size for file in map(Path, source.files) if file.is_file())
        if claimed > max(BOMB_BYTES, max_expansion * size):
            raise UserError(
                f"{path}: has {size:,} bytes but claims to hold {claimed / 2**30:,.0f} GiB of "
                f"pixels; expected at most {max_expansion:g} times the size of the file. It is "
                "damaged, or a decompression bomb. If it is sound, raise --max-expansion."
            )
        yield source


def parts(source: DatasetReader, copies: int = 1) -> Iterator[Window]:
    """Windows of whole blocks that cover a raster, each at most `PART_BYTES` or one block.

    ``copies`` divides the limit, for callers that need several times the bytes of a part.
    """
    height, width = source.block_shapes[0]
    pixel_bytes = source.count * max(np.dtype(kind).itemsize for kind in source.dtypes)
    most = PART_BYTES // (pixel_bytes * copies)
    columns = min(source.width, width * max(1, most // (height * width)))
    rows = min(source.height, height * max(1, most // (height * columns)))
    for row in range(0, source.height, rows):
        for col in range(0, source.width, columns):
            yield Window(col, row, min(columns, source.width - col), min(rows, source.height - row))


def table(report: Report) -> str:
    """Format the tiles of a dataset as a text table, a line per tile."""
    some_unknown = any(tile.labelled < 1 for tile in report.tiles)
    heading = ("tile", "split", "size, px", "GSD, m", "CRS", "building", "black")
    stated = "-" if report.stated_gsd is None else f"{report.stated_gsd:g} (stated)"
    rows = [(*heading, *(["labelled"] if some_unknown else []), "problems")]
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
                *([f"{tile.labelled:.1%}"] if some_unknown else []),
                str(len(tile.problems) or "-"),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _named(crs: CRS | None) -> str:
    """The code of a CRS, or its name if it has no code; "-" for None."""
    if crs is None:
        return "-"
    text = crs.to_string()
    return text.split('"')[1] if '"' in text else text


def find_warnings(tiles: Sequence[TileReport]) -> Iterator[str]:
    """Warnings: oddities that are allowed but may be mistakes."""
    if unlisted := [tile.name for tile in tiles if not tile.split]:
        yield f"split.csv does not list {shortened(unlisted)}, which the pipeline leaves out"
    if full := [tile.name for tile in tiles if (tile.building or 0) > MUCH_BUILDING]:
        yield f"more than {MUCH_BUILDING:.0%} of {shortened(full)} is building: is it inverted?"
    if empty := [tile.name for tile in tiles if tile.building == 0]:
        yield f"no building in {shortened(empty)}"
    if dark := [tile.name for tile in tiles if MUCH_BLACK < (tile.black or 0) < 1]:
        yield f"more than {MUCH_BLACK:.0%} of {shortened(dark)} is black: is data missing there?"
    yield from gathered((tile.name, tile.note) for tile in tiles)
    grids = {tile.name: tile.grid for tile in tiles if tile.grid is not None}
    scales = sorted({grid.gsd for grid in grids.values() if grid.gsd})
    if scales and scales[-1] / scales[0] - 1 > GSD_DIFFERENCE:
        found = shortened([f"{gsd:g}" for gsd in scales])
        yield f"tiles differ in GSD ({found} m), so roofs differ in their size in pixels"
    splits = {tile.name: tile.split for tile in tiles if tile.split}
    try:
        blocks = find_blocks({name: grids[name] for name in splits if name in grids})
    except UserError as error:
        yield str(error)
        return
    for block in blocks:
        if len({splits[name] for name in block}) > 1:
            near = shortened([f"{name} ({splits[name]})" for name in block])
            yield f"tiles of different splits touch or overlap, so scores will be too high: {near}"
