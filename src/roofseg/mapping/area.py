"""Lengths and areas on the ground for polygons in a raster's coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from roofseg.tiles.ground import LENGTH_TOLERANCE, ground_lengths, is_on_earth, to_degrees

LONGEST_SIDE = 0.01  # degrees; a geodesic of this length leaves its parallel by 1 cm at 60°

Polygons = npt.NDArray[np.object_]  # (N,) shapely polygons
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Coordinates of a projection that keeps lengths, ``unit`` metres each."""

    unit: float

    def areas(self, polygons: Polygons) -> Floats:
        """Areas of (N,) polygons in m²."""
        areas: Floats = shapely.area(polygons) * self.unit**2
        return areas

    def scales(self, polygons: Polygons) -> Floats:
        """Metres per unit of x and of y at each of (N,) polygons: (N, 2)."""
        return np.full((len(polygons), 2), self.unit)


@dataclass(frozen=True)
class Ellipsoid:
    """Coordinates in degrees, or in a projection that distorts lengths.

    ``step`` is a small length in the coordinates, such as a pixel's side.
    """

    crs: pyproj.CRS
    step: float

    def areas(self, polygons: Polygons) -> Floats:
        """Areas of (N,) polygons on the WGS 84 ellipsoid in m² (Karney 2013, through PROJ)."""

        def place(x: Floats, y: Floats) -> tuple[Floats, Floats]:
            return to_degrees(self.crs.srs, x, y, self.step)

        degrees = shapely.transform(polygons, place, interleaved=False)
        # Their sides are straight in degrees or in the projection, and would become geodesics.
        degrees = shapely.orient_polygons(shapely.segmentize(degrees, LONGEST_SIDE))
        geod = pyproj.Geod(ellps="WGS84")
        return np.array([abs(geod.geometry_area_perimeter(polygon)[0]) for polygon in degrees])

    def scales(self, polygons: Polygons) -> Floats:
        """Metres per unit of x and of y at each of (N,) polygons: (N, 2)."""
        bounds = shapely.bounds(polygons)
        return self.scales_at((bounds[:, :2] + bounds[:, 2:]) / 2)

    def scales_at(self, points: Floats) -> Floats:
        """Metres per unit of x and of y at (N, 2) points x, y: (N, 2).

        Raises ValueError if a point lies outside the area that the CRS covers.
        """
        steps = np.array([(self.step, 0), (0, self.step)])
        lengths = ground_lengths(self.crs.srs, points, steps)
        if not (inside := np.isfinite(lengths).all(axis=1)).all():
            raise ValueError(f"{points[~inside][0]} is outside the area of the CRS")
        # On a pole, x has no length; callers divide by it.
        return lengths.clip(1e-9) / self.step


Ground = Plane | Ellipsoid


def measure_ground(
    crs: CRS | None, transform: Affine, width: int, height: int, gsd: float | None
) -> Ground | None:
    """Choose how to measure the ground in a raster of ``width`` x ``height`` px.

    Plane where the CRS is projected and keeps lengths (in the raster's corners and centre);
    Ellipsoid in any other projection and for degrees. Without a CRS, or with a local one, Plane by
    ``gsd`` (metres per pixel); None if ``gsd`` is unknown too.

    Raises ValueError if the raster lies outside the area that its CRS covers.
    """
    pixel = math.sqrt(abs(transform.determinant))
    if crs is None or not is_on_earth(crs):
        return None if gsd is None else Plane(gsd / pixel)
    ellipsoid = Ellipsoid(pyproj.CRS.from_user_input(crs.to_string()), pixel)
    points = [(0, 0), (0, height), (width, 0), (width, height), (width / 2, height / 2)]
    true = ellipsoid.scales_at(np.array([transform @ point for point in points]))
    if crs.is_projected:
        unit = crs.linear_units_factor[1]
        if (abs(true / unit - 1) < LENGTH_TOLERANCE).all():
            return Plane(unit)
    return ellipsoid
