"""Coordinate systems in which the Earth repeats itself to the east and to the west."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache

import pyproj

# PROJ's projections whose x is proportional to the longitude.
CYLINDRICAL = {"merc", "webmerc", "eqc", "cea", "mill"}
EDGE = 1 / 180  # a place this near to the edge, as a share of half the width, may lie beyond it


@dataclass(frozen=True)
class World:
    """The range of x that holds the Earth once: ``width`` around ``centre``, in units of the CRS.

    Longitudes have an edge at 180 degrees; x + width is the same place as x.
    """

    centre: float
    width: float

    def is_near_edge(self, left: float, right: float) -> bool:
        """Whether an area from x = ``left`` to ``right`` is near the world's edge, or beyond it."""
        inside = self.width / 2 * (1 - EDGE)
        return left < self.centre - inside or right > self.centre + inside


@cache
def find_world(text: str) -> World | None:
    """The world of a CRS (code or WKT); None if x does not repeat, as in UTM."""
    crs = pyproj.CRS.from_user_input(text)
    if crs.is_geographic:
        return World(0.0, 2 * math.pi / crs.axis_info[0].unit_conversion_factor)
    if not crs.is_projected:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the dictionary lacks details of the CRS
        parameters = crs.to_dict()
    if parameters.get("proj") not in CYLINDRICAL:
        return None
    to_x = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    middle = parameters.get("lon_0", 0.0)
    (centre, east), _ = to_x.transform([middle, middle + 90], [0, 0])
    return World(centre, 4 * (east - centre))
