"""Make a dataset from the user's imagery and masks (or footprints).

All files are written into a scratch folder; the caller moves it into place at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from roofseg.core.entry_point import system_errors_explained
from roofseg.core.errors import UserError, collect_errors, raise_all
from roofseg.core.files import check_file_name, write_json, write_rows, write_text
from roofseg.core.images import UNKNOWN_IN_FILES
from roofseg.core.messages import shortened
from roofseg.core.progress import Progress, silent
from roofseg.intake.chips import find_squares, place_by_name, squares_to_merge
from roofseg.intake.convert import PERCENTILES, ImageHeader, find_scale, read_image_header
from roofseg.intake.division import Division, divide_tiles, given_split
from roofseg.intake.inspect import (
    MAX_EXPANSION,
    Report,
    TileReport,
    find_problems,
    find_warnings,
    inspect_tile,
)
from roofseg.intake.pairing import Label, find_areas, pair_up
from roofseg.intake.rasterize import FootprintLayer, check_placement
from roofseg.intake.remarks import remarks, unlabelled_remarks
from roofseg.intake.write_tiles import KINDS, TileWriter
from roofseg.tiles.grid import MAX_SHIFT_PX, Grid, read_grid, shift_px
from roofseg.tiles.licence import LICENCE_FILE, UNSTATED
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.unknown import write_unknown

# The stated GSD may differ from that of a georeference by this share, because of rounding.
STATED_GSD_TOLERANCE = 0.01
# Notes on images without a CRS whose names are x-y-z.
BY_NAME = "without a CRS, placed by their names x-y-z as tiles of a web map (XYZ)"
ELSEWHERE = (
    "without a CRS, and not placed by their names x-y-z, since their world files say another place"
)


def bring_in(
    images: Path,
    masks: Path,
    folder: Path,
    *,
    division: Division,
    layer: str | None = None,
    unknown: float | None = None,
    areas: Path | None = None,
    areas_layer: str | None = None,
    gsd: float | None = None,
    allow_ballpark: bool = False,
    patch_size: int = 0,
    merge: int | None = None,
    max_expansion: float = MAX_EXPANSION,
    say: Callable[[str], None],
    progress: Progress = silent,
) -> Report:
    """Make a dataset in ``folder``: imgs/, msks/, its small tables, LICENSE.md and intake.json.

    Files are copied. (With a hard link, DVC would make the user's own file read-only.) Imagery that
    is not 8-bit RGB is converted, see `intake.convert`; intake.json records how, and which files
    each tile comes from. A tile takes the name of its file, see `tile_name`. Chips of a web map get
    their place by their names and are merged, see `intake.chips`.

    Pixels without data, or outside the labelled areas, are unknown in the mask, and a tile without
    any other is left out; see `intake.unlabelled`.

    Args:
        images: a folder of rasters, one raster, or the folder of a zoom of web tiles, whose files
            are x/y.png.
        masks: a folder of masks or of files of vector footprints with the same names (apart from
            suffixes), one mask, or one file of footprints. Footprints are rasterized onto the grids
            of the tiles.
        folder: must not exist yet; its parent must.
        layer: layer of the footprints, if the file has several.
        unknown: the value in masks of pixels that nobody has labelled.
        areas: a file of polygons, outside which nobody has labelled anything.
        areas_layer: its layer, if it has several.
        gsd: metres per pixel of rasters that are not georeferenced; only recorded.
        allow_ballpark: accept footprints that may be off, see `intake.rasterize.check_placement`.
        patch_size: merge rasters smaller than this (px), see `intake.chips.squares_to_merge`;
            nothing is merged where the division is a file of the user's.
        merge: instead, merge squares of this many rasters on a side; 1 to merge nothing. Not with a
            division by file.
        max_expansion: see `roofseg.intake.inspect.open_bounded`.
        say: called with each remark for the user, a line without line break.
        progress: shows how many tiles are copied (or converted and rasterized), and checked.

    Raises:
        UserError: the files do not make a dataset; names the first ten problems at once, and counts
            the others. Some files may then already be in ``folder``.
    """
    origins = {folder: folder.name}
    if areas_layer is not None and areas is None:
        raise UserError(
            f"--areas-layer {areas_layer}: names a layer of labelled areas, but no file. Name the "
            "file with --areas."
        )
    if division.seed < 0:
        raise UserError(f"--seed: found {division.seed}; expected 0 or more.")
    if merge is not None and merge < 1:
        raise UserError(f"--merge: found {merge}; expected 1 or more.")
    if merge is not None and division.file:
        raise UserError(
            f"--merge {merge}: cannot be used with --split, which lists files. Leave one of them "
            "out."
        )
    if division.file:
        check_file_name(str(division.file))
        if not division.file.is_file():
            found = "not a regular file" if division.file.exists() else "no such file"
            raise UserError(f"{division.file}: {found}; expected a CSV with `tile,split`.")
    with _originals_named(origins), system_errors_explained():
        image_files, labels = pair_up(images, masks, layer)
        if unknown is not None and not any(isinstance(label, Path) for label in labels.values()):
            raise UserError(
                f"--unknown {unknown:g}: names a value in masks, but --msks {masks} holds "
                "footprints. Leave it out, or say with --areas where they are complete."
            )
        labelled = find_areas(areas, areas_layer) if areas else None
        sources, grids, placed = _read_headers(image_files, max_expansion)
        vectors = [*labels.items(), *((name, labelled) for name in labels)]
        offsets = check_placement(
            ((label, grids[name]) for name, label in vectors if isinstance(label, FootprintLayer)),
            allow_ballpark=allow_ballpark,
        )
        if merge is not None:
            squares = _squares_of(images, grids, merge)
        else:
            squares = [] if division.file else squares_to_merge(grids, patch_size)
        members, left_out = _tiles_of(squares, grids, patch_size)
        used = {name: source for name, source in sources.items() if name not in left_out}
        scale = _scale(images, used, max_expansion)
        for kind in KINDS:
            (folder / kind).mkdir(parents=True)
        intake = TileWriter(
            sources, grids, placed, labels, scale, max_expansion, origins, unknown, labelled
        )
        tiles, rasterized = intake.bring(members, folder, progress)
        blank = sorted(members.keys() - {tile.name for tile in tiles})
        if not tiles:
            raise UserError(
                f"{areas}: no tile has a labelled pixel. Do areas and tiles cover the same ground?"
                if areas
                else f"{masks}: no tile has a labelled pixel that holds data."
            )
        if any(tile.unknown is not None for tile in tiles):
            write_unknown(folder / "msks", UNKNOWN_IN_FILES)
        reports = [
            inspect_tile(tile, max_expansion=max_expansion)
            for tile in progress(tiles, "Checking tiles")
        ]
        raise_all([*find_problems(masks, reports), *_gsd_problems(reports, gsd)])

        square = None
        if division.file is None:
            split, square = divide_tiles(reports, division)
            shares = {"val": division.val, "test": division.test}
            divided: dict[str, object] = {"seed": division.seed, **shares, "square": square}
        else:
            split = given_split(reports, folder, division.file, origins, blank)
            divided = {"file": division.file.name}
        reports = [replace(report, split=split.get(report.name, "")) for report in reports]
        write_rows(folder / "split.csv", ("tile", "split"), split.items())
        write_rows(folder / "nudges.csv", ("tile", "row", "col"), ())
        write_text(folder / LICENCE_FILE, UNSTATED)
        record = {
            "gsd": gsd,
            "scale": scale and {"percentiles": PERCENTILES, "low": scale[0], "high": scale[1]},
            "split": divided,
            "tiles": {tile.name: _record(members[tile.name], sources, labels) for tile in tiles},
            "left_out": [
                sources[name].path.name
                for name in (*left_out, *(chip for tile in blank for chip in members[tile]))
            ],
            **({"areas": areas.name} if areas else {}),
        }
        write_json(folder / "intake.json", record)
    if square and not division.side:
        say(
            "tiles that touch form fewer than three blocks, so the tiles of each square of "
            f"{square:g} m on the ground stay in one split instead (--block sets another side)"
        )
    for side, count in Counter(math.isqrt(len(square)) for square in squares).items():
        say(
            f"{side} x {side} chips were merged into each of {count} tiles (--merge 1 keeps chips "
            "apart)"
        )
    if left_out:
        say(f"left out, since they belong to no such square of chips: {shortened(left_out)}")
    mapped = areas is not None
    for line in (
        *unlabelled_remarks(reports, blank, areas=mapped, stated=unknown),
        *offsets,
        *remarks(used, scale, rasterized, areas=mapped),
    ):
        say(line)
    return Report(tuple(reports), (), tuple(find_warnings(reports)), gsd)


def _read_headers(
    images: Mapping[str, Path], max_expansion: float
) -> tuple[dict[str, ImageHeader], dict[str, Grid], set[str]]:
    """Read the headers and grids of all images, and find which are placed by their names.

    Raises UserError naming all that cannot be used.
    """
    problems: list[str] = []
    sources, grids, placed = {}, {}, set[str]()
    for name, image in images.items():
        with collect_errors(problems):
            header = read_image_header(image, max_expansion)
            with open_raster(image) as source:
                grid = read_grid(source)
            if place := place_by_name(name, grid):
                if grid.transform is None or shift_px(place, grid.transform) <= MAX_SHIFT_PX:
                    placed.add(name)
                    grid, note = place, BY_NAME
                else:
                    note = ELSEWHERE
                header = replace(header, notes=(*header.notes, note))
            sources[name], grids[name] = header, grid
    raise_all(problems)
    return sources, grids, placed


def _squares_of(images: Path, grids: Mapping[str, Grid], side: int) -> list[list[str]]:
    """The squares that ``--merge`` asks for; UserError if there are none."""
    squares = find_squares(grids, side) if side > 1 else []
    if side > 1 and not squares:
        raise UserError(
            f"--merge: found {side}, but no {side} x {side} rasters of {images} lie side by side "
            "on one pixel grid. Leave the option out."
        )
    return squares


def _tiles_of(
    squares: Sequence[Sequence[str]], grids: Mapping[str, Grid], patch_size: int
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The rasters that become each tile, by its name; and those that are left out.

    A raster in no square is a tile, unless it is smaller than a patch and than every merged tile.
    """
    members: dict[str, Sequence[str]] = {}
    merged = {chip for square in squares for chip in square}
    smallest = patch_size if squares else 0
    for square in squares:
        side = math.isqrt(len(square))
        members[f"{square[0]}_{side}x{side}"] = square
        smallest = min(smallest, side * grids[square[0]].height, side * grids[square[0]].width)
    left_out = []
    for name, grid in grids.items():
        if name not in merged and min(grid.height, grid.width) < smallest:
            left_out.append(name)
        elif name not in merged:
            members[name] = [name]
    return members, left_out


def _scale(
    images: Path, sources: Mapping[str, ImageHeader], max_expansion: float
) -> tuple[float, float] | None:
    """Find one scale for all images (see `find_scale`); None if they are 8-bit."""
    kinds = {source.dtype: source.path for source in sources.values()}
    if kinds.keys() == {"uint8"}:
        return None
    if len(kinds) > 1:
        found = ", ".join(f"{path.name} has {kind}" for kind, path in sorted(kinds.items()))
        raise UserError(
            f"{images}: has rasters of different types ({found}); expected one type, since one "
            "scale converts them all to 8 bits. Convert them, or make a dataset of each type."
        )
    return find_scale([source.path for source in sources.values()], max_expansion)


def _gsd_problems(reports: Iterable[TileReport], gsd: float | None) -> Iterator[str]:
    for report in reports:
        own = report.grid and report.grid.gsd
        if gsd and own and abs(own / gsd - 1) > STATED_GSD_TOLERANCE:
            yield (
                f"--gsd: found {gsd:g} m per pixel, but the georeference of {report.name} says "
                f"{own:g}. Leave --gsd out; it is for tiles without a georeference."
            )


def _record(
    chips: Sequence[str], sources: Mapping[str, ImageHeader], labels: Mapping[str, Label]
) -> dict[str, object]:
    """The entry of a tile in intake.json: its files, or those of each chip, row by row."""
    records: list[dict[str, object]] = []
    for chip in chips:
        label = labels[chip]
        mask = label.path if isinstance(label, FootprintLayer) else label
        image = sources[chip]
        records.append({"image": image.path.name, "mask": mask.name, "changes": image.notes})
    return records[0] if len(records) == 1 else {"chips": records}


@contextmanager
def _originals_named(origins: Mapping[Path, str]) -> Iterator[None]:
    """In the messages of errors raised in the block, replace paths of copies by their originals."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for copy in sorted(origins, key=lambda path: len(str(path)), reverse=True):
            message = message.replace(str(copy), origins[copy])
        raise UserError(message) from None
