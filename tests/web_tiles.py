"""Chips of a web map, as OpenAerialMap and fAIr give them: XYZ tiles of a drawn scene."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import geopandas
import numpy as np
import shapely.geometry
from rasterio.features import shapes
from rasterio.transform import Affine
from rasterio.warp import transform
from tiny_dataset import write_raster

ZOOM = 19
PX = 256
HALF = math.pi * 6378137  # half the width of Web Mercator's world
Place = tuple[int, int]  # x and y of an XYZ tile


def tile_at(lon: float, lat: float, zoom: int = ZOOM) -> Place:
    """The XYZ tile of a place."""
    side = 2 * HALF / 2**zoom
    (x,), (y,) = transform("EPSG:4326", "EPSG:3857", [lon], [lat])
    return int((x + HALF) // side), int((HALF - y) // side)


def tile_transform(
    x: int, y: int, crs: str = "EPSG:3857", zoom: int = ZOOM, px: int = PX
) -> Affine:
    """The transform of an XYZ tile; in degrees, it is that of the tile's bounds."""
    side = 2 * HALF / 2**zoom
    west, east = (column * side - HALF for column in (x, x + 1))
    north, south = (HALF - row * side for row in (y, y + 1))
    if crs != "EPSG:3857":
        (west, east), (south, north) = transform("EPSG:3857", crs, [west, east], [south, north])
    return Affine((east - west) / px, 0, west, 0, (south - north) / px, north)


def scene(columns: int, rows: int, px: int = PX) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``columns`` x ``rows`` tiles with a bright roof in each: an image and a mask of 0/1.

    Some roofs lie across the border to the next tile.
    """
    rng = np.random.default_rng(7)
    image = rng.integers(60, 100, (rows * px, columns * px, 3)).astype(np.uint8)
    mask = np.zeros(image.shape[:2], np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = (int(rng.integers(0, px)) for _ in "yx")
            mask[row * px + top :, column * px + left :][: px // 4, : px // 3] = 1
    image[mask == 1] += 120
    return image, mask


def write_chips(
    folder: Path,
    columns: int,
    rows: int,
    *,
    at: tuple[float, float] = (85.32, 27.7),
    crs: str | None = "EPSG:3857",
    suffix: str = ".tif",
    name: str = "OAM-{x}-{y}-{z}",
    without: Iterable[Place] = (),
    px: int = PX,
) -> dict[Place, Path]:
    """Cut a scene into chips, and write them with labels.geojson in EPSG:4326 beside the folder.

    Args:
        folder: gets a chip for each column and row, except those ``without`` it. Beyond 180
            degrees, chips go on at -180.
        at: longitude and latitude of the chip in the north-west corner.
        crs: of the chips; None for files without georeference.
        name: how files are called; may name folders.

    Returns:
        The files by column and row.
    """
    image, mask = scene(columns, rows, px)
    x, y = tile_at(*at)
    paths, roofs = {}, []
    for row in range(rows):
        for column in range(columns):
            place = {"x": (x + column) % 2**ZOOM, "y": y + row, "z": ZOOM}
            part = np.s_[row * px : (row + 1) * px, column * px : (column + 1) * px]
            if (column, row) not in without:
                path = folder / (name.format(**place) + suffix)
                grid = crs and tile_transform(place["x"], place["y"], crs, px=px)
                write_raster(path, image[part], **({"crs": crs, "transform": grid} if crs else {}))
                paths[column, row] = path
            to_map = tile_transform(place["x"], place["y"], px=px)
            found = shapes(mask[part], mask[part] == 1, transform=to_map)
            roofs += [shapely.geometry.shape(roof) for roof, _ in found]
    labels = geopandas.GeoDataFrame(geometry=roofs, crs="EPSG:3857").to_crs(4326)
    folder.parent.mkdir(parents=True, exist_ok=True)
    labels.to_file(folder.parent / "labels.geojson", driver="GeoJSON")
    return paths
