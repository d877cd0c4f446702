"""Find the image and the mask of every tile of a dataset."""

from __future__ import annotations

import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

from roofseg.core.errors import UserError, raise_all
from roofseg.core.files import check_file_name
from roofseg.recipe.parsing import parse_mapping
from roofseg.recipe.split import SPLITS, read_split
from roofseg.tiles.tile import SIDECARS, TilePair
from roofseg.tiles.unknown import read_unknown

# Vector files, which people keep beside rasters, and the files that lie beside vector files.
VECTORS = {".geojson", ".gpkg", ".shp", ".fgb", ".parquet"}
BESIDE_SHAPEFILES = {".dbf", ".shx", ".cpg", ".sbn", ".sbx", ".qix", ".qpj", ".qmd"}
BESIDE_GEOPACKAGES = {".gpkg-wal", ".gpkg-shm", ".gpkg-journal"}
BESIDE = SIDECARS | BESIDE_SHAPEFILES | BESIDE_GEOPACKAGES


def find_tiles(folder: Path) -> tuple[list[TilePair], list[str]]:
    """Find image and mask of every tile of the dataset in ``folder``. No raster is opened.

    Returns:
        The tiles in split.csv, in the order train, val, test, and by name within a split; and the
        names of the files in ``imgs/`` or ``msks/`` that split.csv does not list, sorted

    Raises:
        UserError: split.csv is missing or invalid (see `read_split`), a tile has no image or no
            mask, msks/unknown.txt is invalid, or `find_rasters` finds a problem
    """
    splits = read_split(folder)
    problems: list[str] = []
    files = {kind: find_rasters(folder / kind, problems) for kind in ("imgs", "msks")}
    raise_all(problems)
    for kind, found in files.items():
        if missing := sorted(splits.keys() - found.keys()):
            raise UserError(
                f"{folder / kind}: no file for {', '.join(missing)}, which {folder / 'split.csv'} "
                "lists (by file name without suffix). Add the file, or remove the line."
            )
    images, masks = files.values()
    unknown = read_unknown(folder / "msks")
    tiles = [
        TilePair(name, split, images[name], masks[name], unknown) for name, split in splits.items()
    ]
    tiles.sort(key=lambda tile: (SPLITS.index(tile.split), tile.name))
    return tiles, sorted((images.keys() | masks.keys()) - splits.keys())


def find_rasters(folder: Path, problems: list[str]) -> dict[str, Path]:
    """The files in a folder by stem, except hidden files, sidecars, vector files and folders.

    Adds to ``problems``: the folder is missing or cannot be listed, a link is broken, a file is not
    regular, a name is not valid (see `check_file_name`), or two names differ only in suffix or case
    (on some file systems they are one file).
    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        problems.append(
            f"{folder}: no such folder; expected one raster for each tile. "
            f"{_where_to_get(folder.parent)}."
        )
        return {}
    except OSError as error:
        problems.append(f"{folder}: cannot be listed ({error.strerror}).")
        return {}
    found: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for path in paths:
        if path.name.startswith(".") or path.suffix.lower() in BESIDE or path.is_dir():
            continue
        try:
            check_file_name(str(path))
        except UserError as error:
            problems.append(str(error))
            continue
        if not path.is_file():
            kind = "a broken link" if path.is_symlink() else "not a regular file"
            problems.append(f"{path}: {kind}; expected a raster. Remove or replace it.")
            continue
        if is_vector(path):
            continue
        stem = unicodedata.normalize("NFC", path.stem)
        if other := seen.get(stem.casefold()):
            problems.append(
                f"{path}: {other.name} in the same folder has the same name (apart from suffix and "
                "case); expected one file for each tile. Remove or rename one of them."
            )
        else:
            found[path.stem] = seen[stem.casefold()] = path
    return found


def is_vector(path: Path) -> bool:
    """Whether a file is a vector file, by its suffix; a GeoPackage may hold rasters instead."""
    suffix = path.suffix.lower()
    if suffix != ".gpkg":
        return suffix in VECTORS
    try:
        # immutable: take no lock, and make no files beside it
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as file:
            kinds = file.execute("SELECT data_type FROM gpkg_contents").fetchall()
    except sqlite3.Error:
        return True
    return {kind for (kind,) in kinds} <= {"features", "attributes"}


def _where_to_get(dataset: Path) -> str:
    """How to get the tiles of a dataset: from the stage of its name in dvc.yaml, if it has one."""
    pipeline = dataset.parent / "dvc.yaml"
    if pipeline.is_file():
        stages = parse_mapping(pipeline.read_text(encoding="utf-8"), str(pipeline)).get("stages")
        if dataset.name in (stages or {}):
            return (
                f"Make them with `dvc repro {pipeline}:{dataset.name}`, or get them with `dvc pull`"
            )
    return "Put them there, or get them with `dvc pull` where DVC tracks them"
