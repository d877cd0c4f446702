"""Grids of datum transformations that PROJ lacks: the wheels of pyproj bring none."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from graph import ROOT
from rasterio.crs import CRS
from rasterio.transform import Affine

from roofseg.tiles.datum import MissingGrid, find_missing_grid
from roofseg.tiles.grid import Grid

OSTN15 = "uk_os_OSTN15_NTv2_OSGBtoETRS.tif"
LONDON, STUTTGART, AUSTIN = (530_000, 180_000), (3_513_000, 5_404_000), (621_000, 3_350_000)
# Prints the easting that a longitude gets, and the grid that is missing.
TRANSFORM = f"""
import pyproj
from rasterio.crs import CRS
from rasterio.transform import Affine
from roofseg.tiles.datum import find_missing_grid
from roofseg.tiles.grid import Grid
place = Grid(100, 100, CRS.from_epsg(27700), Affine(0.3, 0, {LONDON[0]}, 0, -0.3, {LONDON[1]}))
to_tile = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:27700", always_xy=True)
print(to_tile.transform(-0.1, 51.5)[0], find_missing_grid("EPSG:4326", "EPSG:27700", place))
"""


def at(crs: str, place: tuple[float, float], pixel: float = 0.3) -> Grid:
    transform = Affine(pixel, 0, place[0], 0, -pixel, place[1])
    return Grid(100, 100, CRS.from_string(crs), transform)


@pytest.mark.parametrize(
    ("source", "crs", "place", "accuracy", "grid"),
    [
        ("EPSG:4326", "EPSG:27700", LONDON, 2, OSTN15),
        ("EPSG:27700", "EPSG:27700", LONDON, None, ""),
        ("EPSG:4326", "EPSG:31467", STUTTGART, 3, "de_adv_BETA2007.tif"),
        ("EPSG:4267", "EPSG:26914", AUSTIN, 11, "us_noaa_nadcon5_nad27_nad83_1986_conus.tif"),
        ("EPSG:4326", "EPSG:26714", AUSTIN, 7, "us_noaa_conus.tif"),
        ("EPSG:4326", "EPSG:32614", AUSTIN, None, ""),
        ("EPSG:3857", "EPSG:32614", AUSTIN, None, ""),
        ("EPSG:4326", "EPSG:25832", (500_000, 5_400_000), None, ""),
    ],
)
def test_a_missing_grid_is_found(
    source: str, crs: str, place: tuple[float, float], accuracy: float | None, grid: str
) -> None:
    found = find_missing_grid(source, crs, at(crs, place))
    if accuracy is None:
        assert found is None
        return
    assert found is not None
    assert (found.name, found.accuracy) == (grid, accuracy)
    assert found.pixel == pytest.approx(0.3, rel=2e-3)
    assert found.exceeds_a_pixel


def test_the_accuracy_is_compared_with_pixels_on_the_ground() -> None:
    for pixel, exceeds in ((0.3, True), (1.9, True), (2.1, False)):
        found = find_missing_grid("EPSG:4326", "EPSG:27700", at("EPSG:27700", LONDON, pixel))
        assert found is not None
        assert found.exceeds_a_pixel == exceeds
    degrees = find_missing_grid("EPSG:4277", "EPSG:4326", at("EPSG:4326", (-0.1, 51.5), 1e-5))
    assert degrees is not None
    assert 0.7 < degrees.pixel < 1.12


def test_the_message_names_grid_accuracy_and_pixels() -> None:
    found = find_missing_grid("EPSG:4326", "EPSG:27700", at("EPSG:27700", LONDON, 0.25))
    assert found is not None
    assert str(found) == (
        f"may be off by 2 m (8 px), because PROJ lacks the grid {OSTN15}, which makes it 1 m"
    )
    assert f"--file {OSTN15}`, or copy https://cdn.proj.org/{OSTN15} " in found.remedy
    unknown = MissingGrid("x.tif", math.nan, math.nan, 0.3)
    assert str(unknown) == "may be off by an unknown distance, because PROJ lacks the grid x.tif"
    assert unknown.exceeds_a_pixel


def test_places_that_are_nowhere_have_none() -> None:
    assert find_missing_grid("EPSG:4326", "EPSG:27700", at("EPSG:27700", (1e12, 1e12))) is None
    site = 'LOCAL_CS["site",UNIT["metre",1]]'
    assert find_missing_grid("EPSG:4326", site, at(site, (0, 0))) is None


def write_grid(path: Path, seconds: float) -> None:
    """A grid by which OSGB36 moves to the east by ``seconds`` of arc, in Great Britain."""
    path.parent.mkdir(exist_ok=True)
    grid = {"crs": "EPSG:4277", "transform": Affine(1, 0, -10.5, 0, -1, 62.5)}
    with rasterio.open(path, "w", "GTiff", 16, 16, 2, dtype="float32", **grid) as target:
        target.write(np.zeros((16, 16), np.float32), 1)
        target.write(np.full((16, 16), seconds, np.float32), 2)
        target.descriptions = ("latitude_offset", "longitude_offset")
        target.units = ("arc-second", "arc-second")
        target.update_tags(TYPE="HORIZONTAL_OFFSET", AREA_OR_POINT="Point")
        target.update_tags(2, positive_value="east")


def london(grids: Path) -> tuple[float, str]:
    """An easting in London, and the missing grid, where ``grids`` is the user's folder of grids."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "PROJ_USER_WRITABLE_DIRECTORY": str(grids),
    }
    done = subprocess.run(
        [sys.executable, "-c", TRANSFORM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    easting, _, missing = done.stdout.strip().partition(" ")
    return float(easting), missing


@pytest.mark.whole
def test_the_remedy_works_without_a_network(tmp_path: Path) -> None:
    """PROJ uses a grid in the user's folder, which the message names."""
    _, missing = london(tmp_path)
    assert missing.startswith("may be off by 2 m (7 px)")
    found = []
    for seconds in (0.0, 10.0):
        write_grid(tmp_path / OSTN15, seconds)
        easting, missing = london(tmp_path)
        assert missing == "None"
        found.append(easting)
    assert found[0] - found[1] == pytest.approx(192.8, abs=0.5)  # 10 seconds at 51.5 degrees north
