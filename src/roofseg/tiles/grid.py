"""The pixel grid of a raster: its size, its place on Earth, and the shape of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from roofseg.core.errors import UserError
from roofseg.tiles.ground import ground_gsd, ground_shear, ground_sides

# File formats round their georeferencing, but by less than a tenth of a pixel.
MAX_SHIFT_PX = 0.1
# The sides of a pixel may differ by this share; augmentation varies the scale by more.
SQUARE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Grid:
    """The pixel grid of a raster.

    ``height`` and ``width`` are in pixels; ``transform`` maps (column, row) to the coordinates of
    ``crs``. ``crs`` and ``transform`` are None where the raster does not state them.
    """

    height: int
    width: int
    crs: CRS | None
    transform: Affine | None

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Its corners as (column, row), from the top left, clockwise."""
        return [(0, 0), (self.width, 0), (self.width, self.height), (0, self.height)]

    @property
    def gsd(self) -> float | None:
        """Ground sampling distance in metres per pixel: the square root of a pixel's area.

        None where the raster does not state its place on Earth: see `ground_gsd`.
        """
        pixel = ground_gsd(self.crs, self.transform, self.height, self.width)
        return pixel and round(math.sqrt(math.prod(pixel)), 9)

    def sides(self, gsd: float | None = None) -> tuple[float, float]:
        """The sides of a pixel, along a row and along a column of pixels.

        In metres if ``gsd`` is the square root of their product in metres; without it, as measured
        on the ground, without rounding. Equal where the raster does not tell their shape: it has no
        transform, or a degenerate one.
        """
        x, y = self._ground or self._sides or (1, 1)
        unit = gsd / math.sqrt(x * y) if gsd else 1
        return x * unit, y * unit

    @property
    def is_sheared(self) -> bool:
        """Whether rows and columns of pixels are not at right angles on the ground.

        In the units of the CRS where the raster does not state its place on Earth.
        """
        if self.transform is None or self._sides is None:
            return False
        cosine = ground_shear(self.crs, self.transform, self.height, self.width)
        if cosine is None:
            a, b, _, d, e, *_ = self.transform
            cosine = (a * b + d * e) / math.prod(self._sides)
        return abs(cosine) > SQUARE_TOLERANCE

    @property
    def _ground(self) -> tuple[float, float] | None:
        return ground_sides(self.crs, self.transform, self.height, self.width)

    @property
    def _sides(self) -> tuple[float, float] | None:
        """The sides of a pixel in the units of the CRS; None where pixels have no area."""
        if self.transform is None or self.transform.is_degenerate:
            return None
        a, b, _, d, e, *_ = self.transform
        return math.hypot(a, d), math.hypot(b, e)


def read_grid(source: DatasetReader) -> Grid:
    """The pixel grid of an open raster."""
    # GDAL gives the identity to a raster that states no transform.
    transform = None if source.transform == Affine.identity() else source.transform
    return Grid(source.height, source.width, source.crs or None, transform)


def shift_px(grid: Grid, other: Affine | None) -> float:
    """The largest distance, in pixels, between a grid's corner and its place by another transform.

    Infinite where one of them gives no place.
    """
    if other is None or other.is_degenerate or grid.transform is None:
        return math.inf
    to_other = ~other @ grid.transform
    return max(math.dist(to_other @ corner, corner) for corner in grid.corners)


def check_square(
    name: str | Path, grid: Grid, gsd: float | None = None, *, remedy: str = "Warp it and its mask"
) -> None:
    """Raise UserError if a raster's pixels are oblong or sheared, so that its roofs are distorted.

    ``gsd`` is its GSD in metres per pixel, if not that of ``grid``; ``remedy`` begins the advice.
    """
    if grid.transform is None:
        return
    side = math.sqrt(abs(grid.transform.determinant))
    gsd = gsd or grid.gsd
    x, y = grid.sides(gsd or side)
    if grid.is_sheared:
        found = "are sheared (rows and columns not at right angles)"
    elif not is_square(x, y):
        found = f"are {x:g} x {y:g} {'m' if gsd else 'units of its georeference'}"
    else:
        return
    crs = ""
    is_square_in_crs = not grid.is_sheared and is_square(*grid._sides or (1, 1))
    if grid.crs and (grid.crs.is_geographic or is_square_in_crs):
        # What is square in a CRS that does not keep shapes, as in degrees, is not on the ground.
        crs, side = "-t_srs EPSG:CODE ", gsd or side
    raise UserError(
        f"{name}: its pixels {found}; expected square ones. {remedy} to square pixels, for example "
        f"with `gdalwarp {crs}-tr {side:g} {side:g}`{' (the code of its UTM zone)' if crs else ''}."
    )


def is_square(x: float, y: float) -> bool:
    """Whether the sides of a pixel count as equal."""
    return max(x, y) <= min(x, y) * (1 + SQUARE_TOLERANCE)
