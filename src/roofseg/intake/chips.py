"""Chips of a web map: find their place by their names, and merge them into tiles of a patch's size.

A tile server and OpenAerialMap give XYZ tiles: squares of 256 px in Web Mercator, numbered by
column x and row y at zoom z.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from roofseg.core.images import Image, file_values
from roofseg.intake.convert import verified_write
from roofseg.tiles.grid import MAX_SHIFT_PX, Grid, shift_px
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.tile import read_tile_mask

WEB_MERCATOR = CRS.from_epsg(3857)
HALF_WORLD_M = math.pi * 6378137  # half the width of Web Mercator's world
# A name of a chip: x-y-z, perhaps after a prefix, as in OAM-386472-221072-19.
XYZ = re.compile(r"(?:.*\D)?(\d+)-(\d+)-(\d+)")
# Zooms that show roofs, and the share of rows that lie beyond 82.5 degrees north, where no roof is.
# Other numbers are more likely a date, such as 2023-10-15, or years.
ZOOMS = range(14, 25)
NO_ROOFS = 0.065
# Chips are merged only if at least so many tiles result.
MIN_TILES = 24


def place_by_name(name: str, grid: Grid) -> Grid | None:
    """The grid of a square raster without CRS in Web Mercator, by its name x-y-z; None if it has
    a CRS or another name."""
    match = XYZ.fullmatch(name)
    if grid.crs is not None or grid.height != grid.width or match is None:
        return None
    x, y, z = map(int, match.groups())
    if z not in ZOOMS or max(x, y) >= 2**z or y < NO_ROOFS * 2**z:
        return None
    side = 2 * HALF_WORLD_M / 2**z
    pixel = side / grid.width
    corner = x * side - HALF_WORLD_M, HALF_WORLD_M - y * side
    transform = Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    return Grid(grid.height, grid.width, WEB_MERCATOR, transform)


def write_place(raster: Path, grid: Grid) -> None:
    """Georeference a raster of any format, by a file of GDAL beside it."""
    assert grid.crs is not None
    assert grid.transform is not None
    numbers = ", ".join(map(repr, grid.transform.to_gdal()))
    Path(f"{raster}.aux.xml").write_text(
        f"<PAMDataset><SRS>{escape(grid.crs.to_wkt())}</SRS>"
        f"<GeoTransform>{numbers}</GeoTransform></PAMDataset>\n",
        encoding="utf-8",
    )


def squares_to_merge(grids: Mapping[str, Grid], patch_size: int) -> list[list[str]]:
    """Choose chips to merge into tiles that hold a patch; [] if none should be.

    ``grids`` are those of all tiles. Only tiles smaller than ``patch_size`` px are chips. Where
    tiles of that size would be fewer than `MIN_TILES`, or their patches would hold less than half
    of the chips' pixels, smaller ones are tried: whole numbers of the commonest chips. Chips of
    different sizes become tiles of about one size. See `find_squares`.
    """
    chips: dict[int, dict[str, Grid]] = defaultdict(dict)  # by side
    for name, grid in grids.items():
        if _side(grid) < patch_size:
            chips[_side(grid)][name] = grid
    if not chips:
        return []
    common = max(chips, key=lambda side: len(chips[side]))
    most = math.isqrt(sum(map(len, chips.values())))
    for count in range(min(math.ceil(patch_size / common), most), 1, -1):
        patch = min(patch_size, count * common)
        small = {side: group for side, group in chips.items() if side < patch}
        squares = [
            square
            for side, group in small.items()
            for square in find_squares(group, math.ceil(patch / side))
        ]
        found = [grid for group in small.values() for grid in group.values()]
        pixels = sum(grid.height * grid.width for grid in found)
        if len(squares) >= MIN_TILES and 2 * len(squares) * patch**2 >= pixels:
            return squares
    return []


def find_squares(grids: Mapping[str, Grid], count: int) -> list[list[str]]:
    """Find squares of ``count`` x ``count`` chips that lie side by side on one pixel grid.

    The chips of a square have one CRS and size, and lie within `MAX_SHIFT_PX` of the grid of its
    first chip. A chip is in at most one square. Squares are taken row by row.

    Returns:
        The names of the chips of each square, row by row
    """
    alike = defaultdict(list)
    for name, grid in grids.items():
        if grid.transform is not None and not grid.transform.is_degenerate:
            alike[str(grid.crs), grid.height, grid.width].append(name)
    squares = []
    for names in alike.values():
        first, used = grids[names[0]], set[str]()
        tree = shapely.STRtree([shapely.Point(_corner(grids[name])) for name in names])
        for name in sorted(names, key=lambda name: _row_and_column(grids[name], first)):
            square = []
            for row, col in itertools.product(range(count), repeat=2):
                place = _moved(grids[name], row, col)
                chip = names[int(tree.nearest(shapely.Point(_corner(place))))]
                if chip in used or shift_px(place, grids[chip].transform) > MAX_SHIFT_PX:
                    break
                square.append(chip)
            else:
                squares.append(square)
                used |= set(square)
    return squares


def merge_images(images: Sequence[Path], out: Path) -> None:
    """Write a square of 8-bit RGB rasters, given row by row, as one GeoTIFF.

    Raises UserError if one cannot be read, OSError if ``out`` cannot be written.
    """
    pixels = []
    for image in images:
        with open_raster(image) as source:
            pixels.append(source.read().transpose(1, 2, 0))
    write_like(joined(pixels), images[0], out, photometric="RGB", interleave="pixel", predictor=2)


def merge_masks(
    masks: Sequence[Path], first_image: Path, out: Path, unknown: float | None = None
) -> None:
    """Write a square of masks, given row by row, as one GeoTIFF with 255 for building.

    Pixels that hold ``unknown`` in the masks become `UNKNOWN_IN_FILES`. The GeoTIFF gets the place
    of ``first_image``. Raises as `merge_images`.
    """
    pixels = joined([read_tile_mask(mask, unknown)[..., None] for mask in masks])
    write_like(file_values(pixels), first_image, out)


def _side(grid: Grid) -> int:
    return min(grid.height, grid.width)


def _corner(grid: Grid) -> tuple[float, float]:
    """The coordinates of a grid's first corner."""
    assert grid.transform is not None
    return grid.transform @ (0, 0)


def _moved(grid: Grid, rows: int, cols: int) -> Grid:
    """The grid of a chip that lies so many chips further down and to the right."""
    assert grid.transform is not None
    moved = grid.transform @ Affine.translation(cols * grid.width, rows * grid.height)
    return replace(grid, transform=moved)


def _row_and_column(grid: Grid, first: Grid) -> tuple[int, int]:
    """The place of a chip among others of its size, counted from ``first``."""
    assert first.transform is not None
    col, row = ~first.transform @ _corner(grid)
    return round(row / grid.height), round(col / grid.width)


def joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Join a square of (h, w) or (h, w, bands) arrays, given row by row."""
    count = math.isqrt(len(parts))
    rows = [np.hstack(parts[row * count : (row + 1) * count]) for row in range(count)]
    return np.vstack(rows)


def write_like(pixels: Image, first: Path, out: Path, **options: object) -> None:
    """Write (H, W, bands) pixels as a GeoTIFF whose first pixel is that of ``first``."""
    with open_raster(first) as source:
        place = {"crs": source.crs, "transform": source.transform}
    height, width, count = pixels.shape
    profile = {"height": height, "width": width, "count": count, "dtype": "uint8", **place}
    compact = {"tiled": True, "compress": "deflate", **options}
    with verified_write(out), rasterio.open(out, "w", driver="GTiff", **profile, **compact) as made:
        made.write(pixels.transpose(2, 0, 1))
