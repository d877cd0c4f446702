"""Make a dataset from the user's imagery and masks (or footprints).

All files are written into a scratch folder; the caller moves it into place at the end.
"""

from __future__ import annotations

import re
import shlex
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio.shutil

from roofseg.core.entry_point import system_errors_explained
from roofseg.core.errors import UserError, collect_errors, raise_all
from roofseg.core.files import write_json, write_rows, write_text
from roofseg.core.messages import gathered, shortened
from roofseg.core.progress import Progress, silent
from roofseg.cutting.find import VECTORS, find_rasters, is_vector
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
    find_layer,
    rasterize_footprints,
)
from roofseg.intake.spatial_split import divide, find_blocks
from roofseg.recipe.split import read_split
from roofseg.tiles.licence import LICENCE_FILE, UNSTATED
from roofseg.tiles.rasters import WORLD_FILES, TilePair

FOOTPRINTS = {*VECTORS, ".json"}
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
    progress: Progress = silent,
) -> Report:
    """Make a dataset in ``folder``: imgs/, msks/, its small tables, LICENSE.md and intake.json.

    Files are copied. (With a hard link, DVC would make the user's own file read-only.) Imagery that
    is not 8-bit RGB is converted, see `intake.convert`; intake.json records how, and which files
    each tile comes from. A tile takes the name of its file, see `tile_name`.

    Args:
        images: a folder of rasters, or one raster.
        masks: a folder of masks with the same names (apart from suffixes), one mask, or a file of
            vector footprints, which are rasterized onto the grids of the tiles.
        folder: must not exist yet; its parent must.
        layer: layer of the footprints, if the file has several.
        gsd: metres per pixel of rasters that are not georeferenced; only recorded.
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
    if division.file and not division.file.is_file():
        raise UserError(f"{division.file}: no such file; expected a CSV with `tile,split`.")
    with _originals_named(origins), system_errors_explained():
        image_files, mask_files, footprints = _pair_up(images, masks, layer)
        sources = _read_headers(image_files, max_expansion)
        scale = _scale(images, sources, max_expansion)
        for kind in ("imgs", "msks"):
            (folder / kind).mkdir(parents=True)
        tiles, rasterized = _copy_tiles(
            sources, mask_files, footprints, folder, scale, max_expansion, origins, progress
        )
        reports = [
            inspect_tile(tile, max_expansion=max_expansion)
            for tile in progress(tiles, "Checking tiles")
        ]
        raise_all([*find_problems(masks, reports), *_gsd_problems(reports, gsd)])

        split = _split(reports, folder, division, origins)
        reports = [replace(report, split=split.get(report.name, "")) for report in reports]
        write_rows(folder / "split.csv", ("tile", "split"), split.items())
        write_rows(folder / "nudges.csv", ("tile", "row", "col"), ())
        write_text(folder / LICENCE_FILE, UNSTATED)
        record = {
            "gsd": gsd,
            "scale": scale and {"percentiles": PERCENTILES, "low": scale[0], "high": scale[1]},
            "split": _record_division(division),
            "tiles": {
                name: {
                    "image": source.path.name,
                    "mask": mask_files.get(name, masks).name,
                    "changes": source.notes,
                }
                for name, source in sources.items()
            },
        }
        write_json(folder / "intake.json", record)
    for line in _remarks(sources, scale, rasterized):
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
) -> tuple[dict[str, Path], dict[str, Path], FootprintLayer | None]:
    """Find the images and their masks by tile name, or the layer of footprints.

    Raises UserError naming all files that do not pair.
    """
    problems = [
        f"{option} {path}: no such file or folder. Correct the path."
        for option, path in (("--imgs", images), ("--msks", masks))
        if not path.exists()
    ]
    if images.is_file() and is_vector(images):
        problems.append(f"--imgs {images}: is a vector file; expected imagery. Is it for --msks?")
    raise_all(problems)
    found = _named_rasters(images, problems)
    if not found and not problems:
        problems.append(
            f"{images}: holds no raster; expected one for each tile. Its subfolders are not "
            "searched."
        )
    found_masks: dict[str, Path] = {}
    footprints = None
    of_footprints = masks.is_file() and masks.suffix.lower() in FOOTPRINTS
    if layer is not None and not of_footprints:
        problems.append(
            f"--layer {layer}: names a layer of footprints, but --msks {masks} holds masks; "
            f"expected a file with one of the suffixes {' '.join(sorted(FOOTPRINTS))}. Leave "
            "--layer out, or name the footprints with --msks."
        )
    if of_footprints:
        with collect_errors(problems):
            footprints = find_layer(masks, layer)
    elif masks.is_file() and len(found) > 1:
        problems.append(
            f"{masks}: one file for {len(found)} images; expected a folder of masks, or footprints "
            f"in a file with one of the suffixes {' '.join(sorted(FOOTPRINTS))}."
        )
    else:
        found_masks = _named_rasters(masks, problems)
        if masks.is_dir() and masks.samefile(images):
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
    raise_all(problems)
    return found, found_masks, footprints


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


def _named_rasters(place: Path, problems: list[str]) -> dict[str, Path]:
    """The rasters in the folder ``place``, or the raster at ``place``, by tile name.

    Adds to ``problems`` the rasters that get no name, or the name of another.
    """
    found = {place.stem: place} if place.is_file() else find_rasters(place, problems)
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


def _read_headers(images: Mapping[str, Path], max_expansion: float) -> dict[str, ImageHeader]:
    """Read the headers of all images; UserError naming all that cannot be used."""
    problems: list[str] = []
    sources = {}
    for name, image in images.items():
        with collect_errors(problems):
            sources[name] = read_image_header(image, max_expansion)
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
    sources: Mapping[str, ImageHeader],
    masks: Mapping[str, Path],
    footprints: FootprintLayer | None,
    folder: Path,
    scale: tuple[float, float] | None,
    max_expansion: float,
    origins: dict[Path, str],
    progress: Progress,
) -> tuple[list[TilePair], dict[str, RasterizeStats]]:
    """Copy or convert images, copy or rasterize masks; UserError naming all that fail."""
    problems: list[str] = []
    tiles = []
    rasterized: dict[str, RasterizeStats] = {}
    for name, source in progress(list(sources.items()), "Bringing in tiles"):
        with collect_errors(problems):
            if source.as_is:
                image = _copy(source.path, folder / "imgs", name, max_expansion)
            else:
                image = folder / "imgs" / f"{name}.tif"
                write_rgb(source.path, image, scale)
            origins[image] = str(source.path)
            if footprints:
                mask = folder / "msks" / f"{name}.tif"
                origins[mask] = f"{footprints.path}, rasterized onto {source.path.name}"
                rasterized[name] = rasterize_footprints(footprints, source.path, mask)
            else:
                mask = _copy(masks[name], folder / "msks", name, max_expansion)
                origins[mask] = str(masks[name])
            tiles.append(TilePair(name, "", image, mask))
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
    if unknown := sorted(
        listed[tile] for tile in listed.keys() - {report.name for report in reports}
    ):
        raise UserError(
            f"{division.file}: lists {shortened(unknown)}, but there is no such image. Expected "
            "file names of images, without suffix."
        )
    return {tile: given[name] for tile, name in listed.items()}


def _record_division(division: Division) -> dict[str, object]:
    """The entry "split" of intake.json."""
    if division.file:
        return {"file": division.file.name}
    divided = {"seed": division.seed, "val": division.val, "test": division.test}
    return {**divided, "square": division.side}


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
