"""Pair images with their labels: find both by the names of tiles."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from roofseg.core.errors import UserError, collect_errors, raise_all
from roofseg.core.files import check_file_name
from roofseg.core.messages import shortened
from roofseg.cutting.find import VECTORS, find_rasters, is_vector
from roofseg.intake.rasterize import FootprintLayer, find_layer

FOOTPRINTS = {*VECTORS, ".json"}
Label = Path | FootprintLayer
"""A mask, or footprints to rasterize."""


def tile_name(stem: str) -> str:
    """Derive a valid tile name from a file's stem; "" if none of its characters is valid.

    Letters (of any script), digits, ``_``, ``.`` and ``-`` are kept; ``_`` replaces all others.
    """
    # NFC: macOS lists names decomposed, but people type composed letters into tables.
    plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", stem))
    return plain.lstrip(".-").rstrip("_")


def pair_up(
    images: Path, masks: Path, layer: str | None
) -> tuple[dict[str, Path], dict[str, Label]]:
    """Find the images and their masks or footprints by tile name.

    Raises UserError naming all files that do not pair.
    """
    problems: list[str] = []
    for option, path in (("--imgs", images), ("--msks", masks)):
        with collect_errors(problems):
            _check_path(option, path)
            if path == images and path.is_file() and is_vector(path):
                raise UserError(
                    f"--imgs {path}: is a vector file; expected imagery. Is it for --msks?"
                )
    raise_all(problems)
    found = _named(_rasters_in(images, problems).items(), problems)
    if not found and not problems:
        problems.append(
            f"{images}: holds no raster; expected one for each tile. Its subfolders are not "
            "searched, except those of web tiles (z/x/y.png), of which one zoom z is named."
        )
    labels: dict[str, Label] = {}
    if masks.is_file() and _holds_footprints(masks):
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
        footprints = [
            (path.stem, path)
            for path in _footprints_in(masks)
            if is_vector(path) or path.stem not in rasters  # a.json may describe the mask a.tif
        ]
        found_masks = _named([*rasters.items(), *footprints], problems)
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
                if _holds_footprints(path):
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


def find_areas(areas: Path, layer: str | None) -> FootprintLayer:
    """Find the layer of labelled areas; UserError if there is none, or if it is empty."""
    _check_path("--areas", areas)
    if not areas.is_file():
        raise UserError(f"--areas {areas}: is a folder; expected a file of polygons.")
    return find_layer(areas, layer, content="labelled areas", option="--areas-layer")


def _check_path(option: str, path: Path) -> None:
    check_file_name(str(path))
    if not path.exists():
        raise UserError(f"{option} {path}: no such file or folder. Correct the path.")
    if not (path.is_file() or path.is_dir()):
        raise UserError(
            f"{option} {path}: is a pipe, a device or a socket; expected a regular file or a "
            "folder."
        )


def _vectors_named(*places: Path) -> str:
    """A sentence that says how to use the vector files in folders as labels; "" without any."""
    # A .json file is left out here: it may describe an image.
    vectors = [path for place in places for path in _footprints_in(place) if is_vector(path)]
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


def _footprints_in(place: Path) -> list[Path]:
    """The files of footprints in a folder, by name, except hidden ones and pipes; [] of a file."""
    return [
        path
        for path in (sorted(place.iterdir()) if place.is_dir() else [])
        if path.is_file() and not path.name.startswith(".") and _holds_footprints(path)
    ]


def _holds_footprints(path: Path) -> bool:
    return is_vector(path) or path.suffix.lower() == ".json"


def _named(found: Iterable[tuple[str, Path]], problems: list[str]) -> dict[str, Path]:
    """Files by the names of their tiles, which follow from their stems; ``found`` gives both.

    Adds to ``problems`` the files that get no name, or the name of another.
    """
    named: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for stem, path in found:
        name = tile_name(stem)
        if not name:
            problems.append(f"{path}: its name has no letter or digit. Rename it.")
        elif other := seen.get(name.casefold()):
            problems.append(
                f"{path}: this file and {other.name} would both become the tile {name} (apart from "
                "case). Remove or rename one of them."
            )
        else:
            named[name] = seen[name.casefold()] = path
    return named


def _web_tiles(zoom: Path, problems: list[str]) -> dict[str, Path]:
    """The web tiles x/y.png in a folder that is named by their zoom, as x-y-z."""
    # The name of "." is empty; that of a link counts before that of its target.
    named = [name for name in (zoom.name, zoom.resolve().name) if name.isdecimal()]
    if not named:
        return {}
    return {
        f"{column.name}-{row}-{named[0]}": path
        for column in sorted(zoom.iterdir())
        if column.is_dir() and column.name.isdecimal()
        for row, path in find_rasters(column, problems).items()
        if row.isdecimal()
    }
