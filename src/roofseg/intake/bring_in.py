"""Make a dataset from the user's imagery and masks (or footprints).

All files are written into a scratch folder; the caller moves it into place at the end.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import rasterio.shutil

from roofseg.core.entry_point import system_errors_explained
from roofseg.core.errors import UserError, collect_errors, raise_all
from roofseg.core.files import check_file_name, write_json, write_rows, write_text
from roofseg.core.messages import gathered, shortened
from roofseg.core.progress import Progress, silent
from roofseg.cutting.find import VECTORS, find_rasters, is_vector
from roofseg.intake.chips import (
    find_squares,
    merge_images,
    merge_masks,
    place_by_name,
    squares_to_merge,
    write_place,
)
from roofseg.intake.convert import (
    PERCENTILES,
    SUFFIXES,
    ImageHeader,
    find_scale,
    read_image_header,
    verified_write,
    write_rgb,
)
from roofseg.intake.inspect import (
    MAX_EXPANSION,
    Report,
    TileReport,
    find_problems,
    find_warnings,
    inspect_tile,
    open_bounded,
)
from roofseg.intake.rasterize import (
    FootprintLayer,
    RasterizeStats,
    check_placement,
    find_layer,
    rasterize_footprints,
)
from roofseg.intake.spatial_split import divide, find_blocks, fitting_side
from roofseg.recipe.split import SPLITS, read_split
from roofseg.tiles.licence import LICENCE_FILE, UNSTATED
from roofseg.tiles.rasters import (
    WORLD_FILES,
    Grid,
    TilePair,
    check_tile,
    open_raster,
    read_grid,
)

FOOTPRINTS = {*VECTORS, ".json"}
# Sidecars that hold the georeference of formats that cannot, such as PNG.
GEOREFERENCE = {".xml", ".prj", *WORLD_FILES}
# The stated GSD may differ from that of a georeference by this share, because of rounding.
STATED_GSD_TOLERANCE = 0.01
# The folders of a dataset.
KINDS = ("imgs", "msks")
# The note on an image that got its place by its name.
BY_NAME = "without a CRS, placed by their names x-y-z as tiles of a web map (XYZ)"
# Tiles that all touch are divided into at least so many squares: two each for val and test.
SQUARES = 12

Label = Path | FootprintLayer  # a mask, or footprints to rasterize


@dataclass(frozen=True)
class Division:
    """How to divide tiles into train, val and test.

    Attributes:
        seed: seed of the random division.
        val, test: shares of the tiles; train gets the rest.
        side: divide the ground into squares of this side in metres; the tiles of a square stay
            together. None: tiles that touch stay together, unless that gives fewer than three
            blocks; then the ground is divided into squares too.
        file: a split.csv to use instead; its tiles are the user's file names without suffix.
    """

    seed: int = 42
    val: float = 1 / 6
    test: float = 1 / 6
    side: float | None = None
    file: Path | None = None


def bring_in(
    images: Path,
    masks: Path,
    folder: Path,
    *,
    division: Division,
    layer: str | None = None,
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

    Args:
        images: a folder of rasters, one raster, or the folder of a zoom of web tiles, whose files
            are x/y.png.
        masks: a folder of masks or of files of vector footprints with the same names (apart from
            suffixes), one mask, or one file of footprints. Footprints are rasterized onto the grids
            of the tiles.
        folder: must not exist yet; its parent must.
        layer: layer of the footprints, if the file has several.
        gsd: metres per pixel of rasters that are not georeferenced; only recorded.
        allow_ballpark: accept footprints that may be off, see `intake.rasterize.check_placement`.
        patch_size: merge rasters smaller than this (px), see `intake.chips.squares_to_merge`;
            nothing is merged where the division is a file of the user's.
        merge: instead, merge squares of this many rasters on a side; 1 to merge nothing.
        max_expansion: see `roofseg.intake.inspect.open_bounded`.
        say: called with each remark for the user, a line without line break.
        progress: shows how many tiles are copied (or converted and rasterized), and checked.

    Raises:
        UserError: the files do not make a dataset; names all problems at once. Some files may then
            already be in ``folder``.
    """
    origins = {folder: folder.name}
    if division.seed < 0:
        raise UserError(f"--seed: found {division.seed}; expected 0 or more.")
    if merge is not None and merge < 1:
        raise UserError(f"--merge: found {merge}; expected 1 or more.")
    if division.file:
        check_file_name(str(division.file))
        if not division.file.is_file():
            found = "not a regular file" if division.file.exists() else "no such file"
            raise UserError(f"{division.file}: {found}; expected a CSV with `tile,split`.")
    with _originals_named(origins), system_errors_explained():
        image_files, labels = _pair_up(images, masks, layer)
        sources, grids = _read_headers(image_files, max_expansion)
        offsets = check_placement(
            (
                (label, grids[name])
                for name, label in labels.items()
                if isinstance(label, FootprintLayer)
            ),
            allow_ballpark=allow_ballpark,
        )
        if merge is None and division.file is None:
            squares = squares_to_merge(grids, patch_size)
        else:
            squares = _squares_of(images, grids, merge or 1)
        members, left_out = _tiles_of(squares, grids)
        scale = _scale(images, sources, max_expansion)
        for kind in KINDS:
            (folder / kind).mkdir(parents=True)
        intake = _Intake(sources, grids, labels, scale, max_expansion, origins)
        tiles, rasterized = intake.bring(members, folder, progress)
        reports = [
            inspect_tile(tile, max_expansion=max_expansion)
            for tile in progress(tiles, "Checking tiles")
        ]
        raise_all([*find_problems(masks, reports), *_gsd_problems(reports, gsd)])

        square = None
        if division.file is None:
            split, square = _divide(reports, division)
            shares = {"val": division.val, "test": division.test}
            divided: dict[str, object] = {"seed": division.seed, **shares, "square": square}
        else:
            split = _given_split(reports, folder, division.file, origins)
            divided = {"file": division.file.name}
        reports = [replace(report, split=split.get(report.name, "")) for report in reports]
        write_rows(folder / "split.csv", ("tile", "split"), split.items())
        write_rows(folder / "nudges.csv", ("tile", "row", "col"), ())
        write_text(folder / LICENCE_FILE, UNSTATED)
        record = {
            "gsd": gsd,
            "scale": scale and {"percentiles": PERCENTILES, "low": scale[0], "high": scale[1]},
            "split": divided,
            "tiles": {name: _record(chips, sources, labels) for name, chips in members.items()},
            "left_out": [sources[name].path.name for name in left_out],
        }
        write_json(folder / "intake.json", record)
    if square and not division.side:
        say(
            "tiles that touch form fewer than three blocks, so the tiles of each square of "
            f"{square:g} m on the ground stay in one split instead (--block sets another side)"
        )
    if squares:
        side = math.isqrt(len(squares[0]))
        say(
            f"{side} x {side} chips were merged into each of {len(squares)} tiles (--merge 1 keeps "
            "chips apart)"
        )
    if left_out:
        say(f"left out, since they belong to no such square of chips: {shortened(left_out)}")
    used = {name: source for name, source in sources.items() if name not in left_out}
    for line in (*offsets, *_remarks(used, scale, rasterized)):
        say(line)
    return Report(tuple(reports), (), tuple(find_warnings(reports)), gsd)


def tile_name(stem: str) -> str:
    """Derive a valid tile name from a file's stem; "" if none of its characters is valid.

    Letters (of any script), digits, ``_``, ``.`` and ``-`` are kept; ``_`` replaces all others.
    """
    # NFC: macOS lists names decomposed, but people type composed letters into tables.
    plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", stem))
    return plain.lstrip(".-").rstrip("_")


def _pair_up(
    images: Path, masks: Path, layer: str | None
) -> tuple[dict[str, Path], dict[str, Label]]:
    """Find the images and their masks or footprints by tile name.

    Raises UserError naming all files that do not pair.
    """
    problems: list[str] = []
    for option, path in (("--imgs", images), ("--msks", masks)):
        with collect_errors(problems):
            check_file_name(str(path))
            if not path.exists():
                raise UserError(f"{option} {path}: no such file or folder. Correct the path.")
            if not (path.is_file() or path.is_dir()):
                raise UserError(
                    f"{option} {path}: is a pipe, a device or a socket; expected a regular file or "
                    "a folder."
                )
            if path == images and path.is_file() and is_vector(path):
                raise UserError(
                    f"--imgs {path}: is a vector file; expected imagery. Is it for --msks?"
                )
    raise_all(problems)
    found = _named(_rasters_in(images, problems), problems)
    if not found and not problems:
        problems.append(
            f"{images}: holds no raster; expected one for each tile. Its subfolders are not "
            "searched, except those of web tiles (z/x/y.png), of which one zoom z is named."
        )
    labels: dict[str, Label] = {}
    if masks.is_file() and masks.suffix.lower() in FOOTPRINTS:
        with collect_errors(problems):
            labels = dict.fromkeys(found, find_layer(masks, layer))
    elif masks.is_file() and len(found) > 1:
        problems.append(
            f"{masks}: one file for {len(found)} images; expected a folder of masks, or footprints "
            f"in a file with one of the suffixes {' '.join(sorted(FOOTPRINTS))}."
        )
    else:
        of_images = masks.is_dir() and masks.samefile(images)
        rasters = {} if of_images else _rasters_in(masks, problems)
        found_masks = _named(_footprints_in(masks) | rasters, problems)
        if of_images and not found.keys() & found_masks.keys():
            problems.append(
                f"{masks}: is the folder of the images; expected masks or footprints."
                f"{_vectors_named(images)}"
            )
        elif lacking := sorted(found.keys() - found_masks.keys()):
            spare = sorted(found_masks.keys() - found.keys())
            problems.append(
                f"{masks}: no mask for {shortened(lacking)}"
                f"{f', but masks without an image: {shortened(spare)}' if spare else ''}; expected "
                f"the same names as in {images}, apart from suffixes. Rename them, or leave those "
                f"images out.{_vectors_named(images, masks)}"
            )
        for name in sorted(found.keys() & found_masks.keys()):
            path = found_masks[name]
            with collect_errors(problems):
                if path.suffix.lower() in FOOTPRINTS:
                    labels[name] = find_layer(path, layer, may_be_empty=True)
                else:
                    labels[name] = path
    if (
        layer is not None
        and not any(isinstance(label, FootprintLayer) for label in labels.values())
        and not problems
    ):
        problems.append(
            f"--layer {layer}: names a layer of footprints, but --msks {masks} holds masks; "
            f"expected a file with one of the suffixes {' '.join(sorted(FOOTPRINTS))}. Leave "
            "--layer out, or name the footprints with --msks."
        )
    raise_all(problems)
    return found, labels


def _vectors_named(*places: Path) -> str:
    """A sentence that says how to use the vector files in folders as labels; "" without any."""
    files = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    vectors = [path for path in files if path.is_file() and is_vector(path)]
    if not vectors:
        return ""
    name = shlex.quote(str(vectors[0]))
    if len(vectors) == 1:
        return f" If {name} holds the labels, say --msks {name} (make: MSKS={name})."
    return (
        f" If {name} and {len(vectors) - 1} more vector files hold the labels, make one file of "
        "them (`ogrmerge.py -single -o footprints.gpkg ...`) and name that with --msks."
    )


def _rasters_in(place: Path, problems: list[str]) -> dict[str, Path]:
    """The rasters in the folder ``place``, or the raster at ``place``, by stem; see `_web_tiles`.

    Adds to ``problems`` as `find_rasters`.
    """
    if place.is_file():
        return {place.stem: place}
    found = find_rasters(place, problems)
    return found or _web_tiles(place, problems)


def _footprints_in(place: Path) -> dict[str, Path]:
    """The files of footprints in a folder, by stem."""
    files = sorted(place.iterdir()) if place.is_dir() else []
    return {path.stem: path for path in files if path.suffix.lower() in FOOTPRINTS}


def _named(found: Mapping[str, Path], problems: list[str]) -> dict[str, Path]:
    """Files by the names of their tiles, which follow from their stems.

    Adds to ``problems`` the files that get no name, or the name of another.
    """
    named: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for stem, path in found.items():
        name = tile_name(stem)
        if not name:
            problems.append(f"{path}: its name has no letter or digit. Rename it.")
        elif other := seen.get(name.casefold()):
            problems.append(
                f"{path}: this file and {other.name} would both become the tile {name} (apart from "
                "case). Rename one of them."
            )
        else:
            named[name] = seen[name.casefold()] = path
    return named


def _web_tiles(zoom: Path, problems: list[str]) -> dict[str, Path]:
    """The web tiles x/y.png in a folder that is named by their zoom, as x-y-z."""
    if not zoom.name.isdecimal():
        return {}
    return {
        f"{column.name}-{row}-{zoom.name}": path
        for column in sorted(zoom.iterdir())
        if column.is_dir() and column.name.isdecimal()
        for row, path in find_rasters(column, problems).items()
        if row.isdecimal()
    }


def _read_headers(
    images: Mapping[str, Path], max_expansion: float
) -> tuple[dict[str, ImageHeader], dict[str, Grid]]:
    """Read the headers and grids of all images; UserError naming all that cannot be used."""
    problems: list[str] = []
    sources, grids = {}, {}
    for name, image in images.items():
        with collect_errors(problems):
            header = read_image_header(image, max_expansion)
            with open_raster(image) as source:
                grid = read_grid(source)
            if place := place_by_name(name, grid):
                header = replace(header, notes=(*header.notes, BY_NAME))
            sources[name], grids[name] = header, place or grid
    raise_all(problems)
    return sources, grids


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
    squares: Sequence[Sequence[str]], grids: Mapping[str, Grid]
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The rasters that become each tile, by its name; and those that are left out.

    A raster in no square is a tile, unless it is smaller than the merged tiles.
    """
    members: dict[str, Sequence[str]] = {}
    merged = {chip for square in squares for chip in square}
    smallest = 0
    for square in squares:
        side = math.isqrt(len(square))
        members[f"{square[0]}_{side}x{side}"] = square
        smallest = side * min(grids[square[0]].height, grids[square[0]].width)
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


@dataclass(frozen=True)
class _Intake:
    """What it takes to bring in tiles; see `bring_in`. ``origins`` gets the source of each file."""

    sources: Mapping[str, ImageHeader]
    grids: Mapping[str, Grid]
    labels: Mapping[str, Label]
    scale: tuple[float, float] | None
    max_expansion: float
    origins: dict[Path, str]

    def bring(
        self, members: Mapping[str, Sequence[str]], folder: Path, progress: Progress
    ) -> tuple[list[TilePair], dict[str, RasterizeStats]]:
        """Bring all tiles into ``folder``; UserError naming all that fail."""
        problems: list[str] = []
        tiles = []
        rasterized: dict[str, RasterizeStats] = {}
        for name, chips in progress(list(members.items()), "Bringing in tiles"):
            with collect_errors(problems):
                if len(chips) == 1:
                    tile, stats = self._tile(name, folder)
                else:
                    tile, stats = self._merged(name, chips, folder)
                tiles.append(tile)
                if stats:
                    rasterized[name] = stats
        raise_all(problems)
        return tiles, rasterized

    def _tile(self, name: str, folder: Path) -> tuple[TilePair, RasterizeStats | None]:
        """Copy or convert one image, and copy or rasterize its mask."""
        image = self._image(name, folder)
        label = self.labels[name]
        if isinstance(label, FootprintLayer):
            mask, stats = self._rasterized(label, image, folder)
            return TilePair(name, "", image, mask), stats
        mask = _copy(label, folder / "msks", name, self.max_expansion)
        self.origins[mask] = str(label)
        return TilePair(name, "", image, mask), None

    def _merged(
        self, name: str, chips: Sequence[str], folder: Path
    ) -> tuple[TilePair, RasterizeStats | None]:
        """Merge a square of images, and merge or rasterize its mask."""
        image, mask = (folder / kind / f"{name}.tif" for kind in KINDS)
        self.origins[image] = f"{name} (merged from {shortened(chips)})"
        labels = {self.labels[chip] for chip in chips}
        with TemporaryDirectory(dir=folder) as scratch:
            for kind in KINDS:
                (Path(scratch) / kind).mkdir()
            if len(labels) == 1 and isinstance(label := labels.pop(), FootprintLayer):
                merge_images([self._image(chip, Path(scratch)) for chip in chips], image)
                mask, stats = self._rasterized(label, image, folder)
                return TilePair(name, "", image, mask), stats
            pairs, counts = zip(*(self._tile(chip, Path(scratch)) for chip in chips), strict=True)
            for pair in pairs:
                check_tile(pair, 1)
            merge_images([pair.image for pair in pairs], image)
            merge_masks([pair.mask for pair in pairs], image, mask)
        self.origins[mask] = f"mask of {self.origins[image]}"
        return TilePair(name, "", image, mask), _sum(counts)

    def _image(self, name: str, folder: Path) -> Path:
        """Copy or convert an image, and georeference it where its name does."""
        source = self.sources[name]
        if source.as_is:
            image = _copy(source.path, folder / "imgs", name, self.max_expansion)
        else:
            image = folder / "imgs" / f"{name}.tif"
            write_rgb(source.path, image, self.scale)
        self.origins[image] = str(source.path)
        if BY_NAME in source.notes:
            write_place(image, self.grids[name])
        return image

    def _rasterized(
        self, layer: FootprintLayer, image: Path, folder: Path
    ) -> tuple[Path, RasterizeStats]:
        """Rasterize footprints onto an image."""
        mask = folder / "msks" / f"{image.stem}.tif"
        self.origins[mask] = f"{layer.path}, rasterized onto {self.origins[image]}"
        return mask, rasterize_footprints(layer, image, mask)


def _sum(counts: Iterable[RasterizeStats | None]) -> RasterizeStats | None:
    known = [astuple(stats) for stats in counts if stats]
    return RasterizeStats(*map(sum, zip(*known, strict=True))) if known else None


def _copy(path: Path, folder: Path, name: str, max_expansion: float) -> Path:
    """Copy a raster and its sidecars as ``name``; convert other formats to GeoTIFF."""
    with open_bounded(path, max_expansion) as source:
        suffix, beside = SUFFIXES.get(source.driver), source.files[1:]
        if suffix is None:
            out = folder / f"{name}.tif"
            with verified_write(out):
                rasterio.shutil.copy(source, out, driver="GTiff", compress="deflate", tiled=True)
            return out
    out = folder / f"{name}{suffix}"
    shutil.copyfile(path, out)
    for sidecar in map(Path, beside):
        if sidecar.suffix.lower() in GEOREFERENCE:
            if sidecar.name.startswith(path.name):  # a.tif.aux.xml, unlike a.tfw
                shutil.copyfile(sidecar, folder / f"{out.name}{sidecar.name[len(path.name) :]}")
            else:
                shutil.copyfile(sidecar, folder / f"{name}{sidecar.suffix}")
    return out


def _gsd_problems(reports: Iterable[TileReport], gsd: float | None) -> Iterator[str]:
    for report in reports:
        own = report.grid and report.grid.gsd
        if gsd and own and abs(own / gsd - 1) > STATED_GSD_TOLERANCE:
            yield (
                f"--gsd: found {gsd:g} m per pixel, but the georeference of {report.name} says "
                f"{own:g}. Leave --gsd out; it is for tiles without a georeference."
            )


def _divide(
    reports: Sequence[TileReport], division: Division
) -> tuple[dict[str, str], float | None]:
    """The split of each tile, and the side of the squares that stay together, if any."""
    grids = {report.name: report.grid for report in reports if report.grid}
    side = division.side
    blocks = find_blocks(grids, side)
    if len(blocks) < len(SPLITS) <= len(grids):
        fitting = fitting_side(grids, SQUARES)
        if side is None:
            side, blocks = fitting, find_blocks(grids, fitting)
        elif len(find_blocks(grids, fitting)) >= len(SPLITS):
            raise UserError(
                f"--block: squares of {side:g} m divide the {len(grids)} tiles into {len(blocks)} "
                f"{'block' if len(blocks) == 1 else 'blocks'}; expected at least 3, one each for "
                f"train, val and test. Use --block {fitting:g}."
            )
    fractions = {report.name: report.building or 0.0 for report in reports}
    split = divide(blocks, fractions, seed=division.seed, val=division.val, test=division.test)
    return split, side


def _given_split(
    reports: Sequence[TileReport], folder: Path, file: Path, origins: dict[Path, str]
) -> dict[str, str]:
    """The split of each tile from the user's ``file``."""
    copy = folder / "split.csv"
    origins[copy] = str(file)
    shutil.copyfile(file, copy)
    given = read_split(folder)
    listed: dict[str, str] = {}
    for name in given:
        if (other := listed.setdefault(tile_name(name), name)) != name:
            raise UserError(
                f"{file}: lists {other} and {name}, which become the same tile. Remove "
                "one of the lines."
            )
    if unknown := sorted(
        listed[tile] for tile in listed.keys() - {report.name for report in reports}
    ):
        raise UserError(
            f"{file}: lists {shortened(unknown)}, but there is no such image. Expected "
            "file names of images, without suffix."
        )
    return {tile: given[name] for tile, name in listed.items()}


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


def _remarks(
    sources: Mapping[str, ImageHeader],
    scale: tuple[float, float] | None,
    rasterized: Mapping[str, RasterizeStats],
) -> Iterator[str]:
    """Remarks for the user on how tiles were brought in, one line each."""
    if renamed := [
        f"{source.path.stem!r} is {name}"
        for name, source in sources.items()
        if source.path.stem != name
    ]:
        yield f"tiles named differently from their files: {shortened(renamed)}"
    yield from gathered((name, note) for name, source in sources.items() for note in source.notes)
    if bare := [name for name, stats in rasterized.items() if not stats.features]:
        yield f"no footprint on {shortened(bare)}: leave out tiles that nobody has mapped"
    if repaired := sum(stats.repaired for stats in rasterized.values()):
        yield f"invalid footprints that were repaired: {repaired}"
    if skipped := sum(stats.skipped for stats in rasterized.values()):
        yield f"features without a usable polygon that were left out: {skipped}"
    if scale:
        low, high = scale  # all digits, so that prediction can use exactly the same scale
        yield (
            f"{low} became 0 and {high} 255: percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of "
            f"all tiles; to predict such imagery, use --scale {low} {high}"
        )


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
