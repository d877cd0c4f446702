"""Imagery, masks and footprints as users have them before intake, and a project without tiles."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas
import numpy as np
import shapely
from graph import ROOT
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, tile_pixels, write_raster

SIZE = 96
NAMES = ("a", "b", "c", "d", "e", "f")
SAMPLE = (ROOT / "profiles" / "sample.yaml").read_text()


def make_empty_project(folder: Path) -> None:
    """Make a git and DVC repository with the profile of the sample and no tiles."""
    shutil.copytree(_new_repository().name, folder)
    (folder / "profiles").mkdir()
    (folder / "profiles" / "sample.yaml").write_text(SAMPLE)
    (folder / "dvc.yaml").touch()
    (folder / ".gitignore").write_text((ROOT / ".gitignore").read_text())


@cache
def _new_repository() -> TemporaryDirectory[str]:
    """A new git and DVC repository, which takes half a second to make."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder.name, check=True, capture_output=True)
    return folder


def place_of(index: int) -> Affine:
    """The transform of a tile: tiles are in a row to the east, with gaps between them."""
    return TRANSFORM @ Affine.translation(index * SIZE * 1.5, 0)


def write_pairs(
    folder: Path,
    names: tuple[str, ...] = NAMES,
    *,
    suffixes: tuple[str, str] = (".tif", ".tif"),
    change: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    georeferenced: bool = True,
    **profile: object,
) -> tuple[Path, Path]:
    """Imagery and masks of a user: folder/imagery and folder/labels."""
    for index, name in enumerate(names):
        image, mask = tile_pixels(index, SIZE)
        geo = {"crs": CRS, "transform": place_of(index)} if georeferenced else {}
        write_raster(folder / "imagery" / f"{name}{suffixes[0]}", change(image), **geo, **profile)
        write_raster(folder / "labels" / f"{name}{suffixes[1]}", mask * np.uint8(255), **geo)
    return folder / "imagery", folder / "labels"


def write_footprints(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    """The roofs of `write_pairs` as polygons in degrees."""
    path.parent.mkdir(exist_ok=True)
    roofs = []
    for index, _ in enumerate(names):
        rows, cols = np.nonzero(tile_pixels(index, SIZE)[1])
        corners = [
            place_of(index) @ (col, row)
            for col, row in ((cols.min(), rows.min()), (cols.max() + 1, rows.max() + 1))
        ]
        roofs.append(shapely.box(*corners[0], *corners[1]))
    layer = geopandas.GeoDataFrame(geometry=roofs, crs=CRS).to_crs(4326)
    if path.suffix == ".parquet":
        layer.to_parquet(path)
    else:
        layer.to_file(path)
    return path
