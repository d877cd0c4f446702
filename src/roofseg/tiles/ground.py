"""Lengths on the ground of steps in a raster's coordinates, and the GSD that follows from them."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine

# A projection whose lengths differ from those on the ground by less keeps lengths, and areas by
# twice as much, as UTM and national grids do. Web Mercator's lengths are 2 % too long at 11° and
# twice too long at 60°.
LENGTH_TOLERANCE = 0.005
# Significant digits of a measured GSD: it changes by a thousandth in 6 km at 45°, so neighbouring
# tiles have the same.
DIGITS = 3

Floats = npt.NDArray[np.float64]
Pair = tuple[float, float]


def is_on_earth(crs: CRS | None) -> bool:
    """Whether a CRS says where on Earth its coordinates lie; a local (engineering) CRS does not."""
    return crs is not None and (crs.is_projected or crs.is_geographic)


def to_degrees(crs: str, x: Floats, y: Floats, step: float) -> tuple[Floats, Floats]:
    """Longitudes and latitudes of points; not finite, or no latitude, where ``crs`` has no place.

    A raster whose pixels have their centres on a pole reaches half a pixel beyond it: latitudes up
    to ``step`` degrees beyond a pole are those of the pole.
    """
    lon, lat = _transformer(crs).transform(x, y)
    return lon, np.where(np.abs(lat) <= 90 + step, np.clip(lat, -90, 90), lat)


def ground_lengths(crs: str, points: Floats, steps: Floats) -> Floats:
    """Measure steps on the WGS 84 ellipsoid; near a pole, those that lead away from it.

    Args:
        crs: a geographic or projected CRS, as a code or WKT.
        points: (N, 2) x and y of the points where the steps begin.
        steps: (M, 2) steps in x and y.

    Returns:
        (N, M) lengths in metres; not finite where the CRS does not cover a step.

    Raises:
        ProjError: PROJ does not know the CRS
    """
    geod = pyproj.Geod(ellps="WGS84")
    longest = float(np.abs(steps).max())

    def places(points: Floats) -> tuple[Floats, Floats]:
        return to_degrees(crs, points[:, 0], points[:, 1], longest)

    start = places(points)
    ahead, back = (
        [geod.inv(*start, *places(points + step))[2] for step in signed]
        for signed in (steps, -steps)
    )
    return np.transpose(np.fmax(ahead, back))


def ground_sides(crs: CRS | None, transform: Affine | None, height: int, width: int) -> Pair | None:
    """The sides of a pixel at the centre of a raster of ``height`` x ``width`` px.

    A projection that keeps lengths gives the length of its steps. In degrees and Web Mercator they
    are measured on the ellipsoid.

    Returns:
        Metres from a pixel to the next in its row, and to the next in its column. None where the
        raster does not state its place on Earth, lies outside the area of its CRS, or has pixels
        without area.
    """
    if crs is None or transform is None:
        return None
    measured, nominal = _pixel_sides(crs, transform, height, width)
    return nominal or measured


def ground_gsd(crs: CRS | None, transform: Affine | None, height: int, width: int) -> Pair | None:
    """As `ground_sides`; if measured, scaled so that their geometric mean has `DIGITS` digits."""
    if crs is None or transform is None:
        return None
    measured, nominal = _pixel_sides(crs, transform, height, width)
    if measured is None or nominal is not None:
        return nominal
    mean = math.sqrt(math.prod(measured))
    rounded = float(f"{mean:.{DIGITS}g}") / mean
    return measured[0] * rounded, measured[1] * rounded


def ground_shear(
    crs: CRS | None, transform: Affine | None, height: int, width: int
) -> float | None:
    """The cosine of the angle on the ground between the rows and columns of pixels, at the centre.

    0 for right angles. None as in `ground_sides`.
    """
    sides = ground_sides(crs, transform, height, width)
    if sides is None or crs is None or transform is None:
        return None
    centre = np.array([transform @ (width / 2, height / 2)])
    row, column = np.array([(transform.a, transform.d), (transform.b, transform.e)])
    # The law of cosines in the triangle of a step along a row, a step along a column, and both.
    ((x, y, both),) = ground_lengths(crs.to_string(), centre, np.array([row, column, row + column]))
    return float((both**2 - x**2 - y**2) / (2 * x * y))


def ground_crs(crs: CRS, transform: Affine, height: int, width: int) -> CRS:
    """A CRS whose coordinates are lengths on the ground around a raster.

    Its own if that keeps lengths, or if the raster has no place on Earth. Otherwise Lambert's
    equal-area projection around its first corner, in metres.
    """
    measured, nominal = _pixel_sides(crs, transform, height, width)
    if measured is None or nominal is not None:
        return crs
    lon, lat = _transformer(crs.to_string()).transform(*(transform @ (0, 0)))
    return CRS.from_proj4(f"+proj=laea +lat_0={lat!r} +lon_0={lon!r} +datum=WGS84 +units=m")


def _pixel_sides(
    crs: CRS, transform: Affine, height: int, width: int
) -> tuple[Pair | None, Pair | None]:
    """A pixel's sides in metres at the centre: measured, and by the units of the CRS.

    The first is None where the raster has no place on Earth, the second where the CRS does not keep
    lengths.
    """
    if transform.is_degenerate or not is_on_earth(crs):
        return None, None
    centre = np.array([transform @ (width / 2, height / 2)])
    steps = np.array([(transform.a, transform.d), (transform.b, transform.e)])
    try:
        ((row, column),) = ground_lengths(crs.to_string(), centre, steps).tolist()
    except ProjError:
        return None, None
    if not 0 < row * column < math.inf:
        return None, None
    if crs.is_projected:
        unit = crs.linear_units_factor[1]
        by_row, by_column = (np.hypot(*steps.T) * unit).tolist()
        if max(abs(by_row / row - 1), abs(by_column / column - 1)) < LENGTH_TOLERANCE:
            return (row, column), (by_row, by_column)
    return (row, column), None


@lru_cache
def _transformer(crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
