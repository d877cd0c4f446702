"""How far a transformation between two coordinate systems may be off, because a grid is missing."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyproj
from pyproj.aoi import AreaOfInterest
from pyproj.datadir import get_user_data_dir
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup

from roofseg.tiles.grid import Grid
from roofseg.tiles.ground import to_degrees


@dataclass(frozen=True)
class MissingGrid:
    """A grid without which PROJ transforms less accurately than it could.

    Attributes:
        name: the grid's file.
        accuracy, possible: accuracy in metres without and with the grid; NaN if unknown.
        pixel: side of a pixel of the raster, in metres on the ground.
    """

    name: str
    accuracy: float
    possible: float
    pixel: float

    @property
    def exceeds_a_pixel(self) -> bool:
        """Whether coordinates may be off by more than a pixel, or by an unknown distance."""
        return not self.accuracy <= self.pixel

    def __str__(self) -> str:
        """How far coordinates may be off and why, to follow a subject such as "footprints"."""
        off = "an unknown distance"
        if not math.isnan(self.accuracy):
            off = f"{self.accuracy:g} m ({self.accuracy / self.pixel:.0f} px)"
        possible = "" if math.isnan(self.possible) else f", which makes it {self.possible:g} m"
        return f"may be off by {off}, because PROJ lacks the grid {self.name}{possible}"

    @property
    def remedy(self) -> str:
        """How to get the grid, with and without a network."""
        return (
            f"Get it with `python -m pyproj sync --file {self.name}`, or copy "
            f"https://cdn.proj.org/{self.name} from another machine into {get_user_data_dir()}"
        )


def find_missing_grid(source: str, target: str, raster: Grid) -> MissingGrid | None:
    """Find the grid that PROJ lacks to transform from ``source`` to ``target`` as well as it could.

    ``source`` and ``target`` are codes or WKT. The raster, which tells where on Earth, has a CRS
    and a transform. None if no grid is missing, or if PROJ cannot transform at all.
    """
    assert raster.crs is not None
    assert raster.transform is not None
    x, y = raster.transform @ (raster.width / 2, raster.height / 2)
    try:
        lon, lat = to_degrees(raster.crs.to_string(), np.array([x]), np.array([y]), step=0)
        if not np.isfinite([lon, lat]).all():
            return None
        found = _find(source, target, round((lon[0] + 180) % 360 - 180, 1), round(lat[0], 1))
    except ProjError:
        return None
    return found and replace(found, pixel=raster.gsd or math.nan)


@cache
def _find(source: str, target: str, longitude: float, latitude: float) -> MissingGrid | None:
    """The missing grid at a place, without the size of pixels there."""
    around = AreaOfInterest(longitude - 0.1, latitude - 0.1, longitude + 0.1, latitude + 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which names the grid, but not the accuracy
        group = TransformerGroup(
            source,
            target,
            always_xy=True,
            area_of_interest=around,  # type: ignore[arg-type]  # its stubs name a private class
        )
    lacking = [
        (grid.short_name, operation.accuracy)
        for operation in group.unavailable_operations[:1]
        for grid in operation.grids
        if not grid.available
    ]
    if group.best_available or not lacking:
        return None
    to_source = pyproj.Transformer.from_crs("OGC:CRS84", source, always_xy=True)
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    transformer.transform(*to_source.transform(longitude, latitude))
    used = transformer.get_last_used_operation()
    name, possible = lacking[0]
    return MissingGrid(name, _metres(used.accuracy), _metres(possible), math.nan)


def _metres(accuracy: float) -> float:
    """PROJ's accuracy, which is negative where it is unknown."""
    return accuracy if accuracy >= 0 else math.nan
