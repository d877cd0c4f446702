"""Make a dataset from the user's imagery and masks (or footprints).

All files are written into a scratch folder; the caller moves it into place at the end.
"""

from __future__ import annotations

import csv
import math
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio.shutil

from roofseg.core.errors import UserError
from roofseg.core.files import write_json, write_text
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
    collect_errors,
    find_problems,
    find_warnings,
    inspect_tile,
    open_bounded,
    raise_all,
    rasters_by_stem,
    shortened,
    system_errors_named,
)
from roofseg.intake.rasterize import RasterizeStats, find_layer, rasterize_footprints
from roofseg.intake.spatial_split import divide, find_blocks
from roofseg.recipe.split import read_split
from roofseg.tiles.licence import LICENCE_FILE, UNSTATED
from roofseg.tiles.rasters import WORLD_FILES, TilePair

VECTORS = {".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet"}
# Sidecars that hold the georeference of formats that cannot, such as PNG.
GEOREFERENCE = {".xml", ".prj", *WORLD_FILES}
# The stated GSD may differ from that of a georeference by this share, because of rounding.
STATED_GSD_TOLERANCE = 0.01


@dataclass(frozen=True)
class Division:
    """How to divide tiles into train, val and test.

    Attributes:
        seed: seed of the random division.
        val, test: shares of the tiles; train gets the rest.
        side: divide the ground into squares of this side in metres; the tiles of a square stay
            together. None: tiles that touch stay together.
        file: a split.csv to use instead; its tiles are the user's file names without suffix.
    """

    seed: int = 42
    val: float = 1 / 6
    test: float = 1 / 6
    side: float | None = None
    file: Path | None = None


@dataclass(frozen=True)
class _Pair:
    """A future tile: its valid name, image, and mask (None with vector footprints)."""

    name: str
    image: Path
    mask: Path | None


def bring_in(
    images: Path,
    masks: Path,
    folder: Path,
    *,
    division: Division,
    layer: str | None = None,
    gsd: float | None = None,
    max_expansion: float = MAX_EXPANSION,
    say: Callable[[str], None],
) -> Report:
    """Make a dataset in ``folder``: imgs/, msks/, its small tables, LICENSE.md and intake.json.

    Files are copied. (With a hard link, DVC would make the user's own file read-only.) Imagery that
    is not 8-bit RGB is converted, see `intake.convert`; intake.json records how, and which files
    each tile comes from. A tile takes the name of its file, see `tile_name`.

    Args:
        images: a folder of rasters, or one raster.
        masks: a folder of masks with the same names (apart from suffixes), one mask, or a file of
            vector footprints, which are rasterised onto the grids of the tiles.
        folder: must not exist yet; its parent must.
        layer: layer of the footprints, if the file has several.
        gsd: metres per pixel of rasters that are not georeferenced; only recorded.
        max_expansion: see `roofseg.intake.inspect.open_bounded`.
        say: called with each remark for the user, a line without line break.

    Raises:
        UserError: the files do not make a dataset; names all problems at once. Some files may then
            already be in ``folder``.
    """
    origins = {folder: folder.name}
    _check_numbers(division, gsd, max_expansion)
    with _originals_named(origins), system_errors_named():
        pairs = _pair_up(images, masks, layer)
        sources = _read_headers(pairs, max_expansion)
        scale = _scale(images, sources, max_expansion)
        for kind in ("imgs", "msks"):
            (folder / kind).mkdir(parents=True)
        tiles, rasterized = _copy_tiles(
            pairs, sources, masks, layer, folder, scale, max_expansion, origins
        )
        reports = [inspect_tile(tile, max_expansion=max_expansion) for tile in tiles]
        raise_all([*find_problems(masks, reports), *_gsd_problems(reports, gsd)])

        split = _split(pairs, reports, folder, division, origins)
        reports = [replace(report, split=split.get(report.name, "")) for report in reports]
        _write_table(folder / "split.csv", ("tile", "split"), split.items())
        _write_table(folder / "nudges.csv", ("tile", "row", "col"), ())
        write_text(folder / LICENCE_FILE, UNSTATED)
        write_json(folder / "intake.json", _record(pairs, sources, masks, scale, gsd, division))
    for line in _remarks(pairs, sources, scale, rasterized):
        say(line)
    return Report(tuple(reports), (), tuple(find_warnings(reports)), gsd)


def tile_name(stem: str) -> str:
    """Derive a valid tile name from a file's stem; "" if none of its characters is valid.

    Letters (of any script), digits, ``_``, ``.`` and ``-`` are kept; ``_`` replaces all others.
    """
    # NFC: macOS lists names decomposed, but people type composed letters into tables.
    plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", stem))
    return plain.lstrip(".-").rstrip("_")


def _check_numbers(division: Division, gsd: float | None, max_expansion: float) -> None:
    numbers = {"--gsd": gsd, "--block": division.side, "--max-expansion": max_expansion}
    for name, value in numbers.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name}: found {value:g}; expected a number above 0.")
    if division.seed < 0:
        raise UserError(f"--seed: found {division.seed}; expected 0 or more.")


def _pair_up(images: Path, masks: Path, layer: str | None) -> list[_Pair]:
    """Pair images with masks; UserError naming all files that do not pair."""
    problems: list[str] = []
    found = _named_rasters(images, problems)
    if not found and not problems:
        problems.append(
            f"{images}: holds no raster; expected one for each tile. Its subfolders are not "
            "searched."
        )
    if _is_vector(masks):
        with collect_errors(problems):
            find_layer(masks, layer)
        raise_all(problems)
        return [_Pair(name, image, None) for name, image in found.items()]
    if masks.is_file() and len(found) > 1:
        problems.append(
            f"{masks}: one file for {len(found)} images; expected a folder of masks, or footprints "
            f"in a file with one of the suffixes {' '.join(sorted(VECTORS))}."
        )
        raise_all(problems)
    found_masks = _named_rasters(masks, problems)
    if lacking := sorted(found.keys() - found_masks.keys()):
        spare = sorted(found_masks.keys() - found.keys())
        problems.append(
            f"{masks}: no mask for {shortened(lacking)}"
            f"{f', but masks without an image: {shortened(spare)}' if spare else ''}; expected the "
            f"same names as in {images}, apart from suffixes. Rename them, or leave those images "
            "out."
        )
    raise_all(problems)
    return [_Pair(name, image, found_masks[name]) for name, image in found.items()]


def _is_vector(masks: Path) -> bool:
    return masks.is_file() and masks.suffix.lower() in VECTORS


def _named_rasters(place: Path, problems: list[str]) -> dict[str, Path]:
    """The rasters in the folder ``place``, or the raster at ``place``, by tile name.

    Adds to ``problems`` the rasters that get no name, or the name of another.
    """
    found = {place.stem: place} if place.is_file() else rasters_by_stem(place, problems)
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


def _read_headers(pairs: Sequence[_Pair], max_expansion: float) -> dict[str, ImageHeader]:
    """Read the headers of all images; UserError naming all that cannot be used."""
    problems: list[str] = []
    sources = {}
    for pair in pairs:
        with collect_errors(problems):
            sources[pair.name] = read_image_header(pair.image, max_expansion)
    raise_all(problems)
    return sources


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


def _copy_tiles(
    pairs: Sequence[_Pair],
    sources: Mapping[str, ImageHeader],
    masks: Path,
    layer: str | None,
    folder: Path,
    scale: tuple[float, float] | None,
    max_expansion: float,
    origins: dict[Path, str],
) -> tuple[list[TilePair], dict[str, RasterizeStats]]:
    """Copy or convert images, copy or rasterise masks; UserError naming all that fail."""
    problems: list[str] = []
    tiles = []
    rasterized: dict[str, RasterizeStats] = {}
    for pair in pairs:
        with collect_errors(problems):
            if sources[pair.name].as_is:
                image = _copy(pair.image, folder / "imgs", pair.name, max_expansion)
            else:
                image = folder / "imgs" / f"{pair.name}.tif"
                write_rgb(pair.image, image, scale)
            origins[image] = str(pair.image)
            if pair.mask is None:
                mask = folder / "msks" / f"{pair.name}.tif"
                origins[mask] = f"{masks}, rasterised onto {pair.image.name}"
                rasterized[pair.name] = rasterize_footprints(masks, pair.image, mask, layer=layer)
            else:
                mask = _copy(pair.mask, folder / "msks", pair.name, max_expansion)
                origins[mask] = str(pair.mask)
            tiles.append(TilePair(pair.name, "", image, mask))
    raise_all(problems)
    return tiles, rasterized


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


def _split(
    pairs: Sequence[_Pair],
    reports: Sequence[TileReport],
    folder: Path,
    division: Division,
    origins: dict[Path, str],
) -> dict[str, str]:
    """The split of each tile, from the user's file or from a random division of blocks."""
    if division.file is None:
        grids = {report.name: report.grid for report in reports if report.grid}
        fractions = {report.name: report.building or 0.0 for report in reports}
        return divide(
            find_blocks(grids, division.side),
            fractions,
            seed=division.seed,
            val=division.val,
            test=division.test,
        )
    copy = folder / "split.csv"
    origins[copy] = str(division.file)
    shutil.copyfile(division.file, copy)
    given = read_split(folder)
    listed: dict[str, str] = {}
    for name in given:
        if (other := listed.setdefault(tile_name(name), name)) != name:
            raise UserError(
                f"{division.file}: lists {other} and {name}, which become the same tile. Remove "
                "one of the lines."
            )
    if unknown := sorted(listed[tile] for tile in listed.keys() - {pair.name for pair in pairs}):
        raise UserError(
            f"{division.file}: lists {shortened(unknown)}, but there is no such image. Expected "
            "file names of images, without suffix."
        )
    return {tile: given[name] for tile, name in listed.items()}


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _record(
    pairs: Sequence[_Pair],
    sources: Mapping[str, ImageHeader],
    masks: Path,
    scale: tuple[float, float] | None,
    gsd: float | None,
    division: Division,
) -> dict[str, object]:
    """The contents of intake.json; it names files without their folders."""
    divided = {"seed": division.seed, "val": division.val, "test": division.test}
    return {
        "gsd": gsd,
        "scale": scale and {"percentiles": PERCENTILES, "low": scale[0], "high": scale[1]},
        "split": (
            {"file": division.file.name} if division.file else {**divided, "square": division.side}
        ),
        "tiles": {
            pair.name: {
                "image": pair.image.name,
                "mask": (pair.mask or masks).name,
                "changes": sources[pair.name].notes,
            }
            for pair in pairs
        },
    }


def _remarks(
    pairs: Sequence[_Pair],
    sources: Mapping[str, ImageHeader],
    scale: tuple[float, float] | None,
    rasterized: Mapping[str, RasterizeStats],
) -> Iterator[str]:
    """Remarks for the user on how tiles were brought in, one line each."""
    if renamed := [
        f"{pair.image.stem!r} is {pair.name}" for pair in pairs if pair.image.stem != pair.name
    ]:
        yield f"tiles named differently from their files: {shortened(renamed)}"
    changes: dict[str, list[str]] = {}
    for name, source in sources.items():
        for note in source.notes:
            changes.setdefault(note, []).append(name)
    for note, names in changes.items():
        yield f"{note}: {shortened(names)}"
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
