"""The records that describe the scene of a tile: `layout` makes them, `render` draws them.

Positions are in pixels from the tile's centre, x to the east (right) and y to the south (down);
angles are in radians from x towards y; heights are in metres above the ground; colours are the
digital numbers (0..255, RGB) of a level surface in sunlight under a clear sky.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

GSD = 0.3  # metres per pixel, as in the Inria dataset

Points = npt.NDArray[np.float64]  # (N, 2), x and y
Colour = tuple[float, float, float]
Lengths = TypeVar("Lengths", float, npt.NDArray[np.floating])


class Material(IntEnum):
    """Material of a surface; it decides the texture, not the colour."""

    GRASS = 0
    SOIL = 1
    ASPHALT = 2
    CONCRETE = 3
    WATER = 4
    PAINT = 5


@dataclass(frozen=True)
class Surface:
    """A piece of ground: a filled polygon, or with ``width`` (pixels) a line along ``outline``."""

    outline: Points
    colour: Colour
    material: Material
    width: float = 0.0


@dataclass(frozen=True)
class Box:
    """An object with a level top: vehicle, fence, air conditioner. Never part of the mask.

    ``top`` may be 0 for an object that lies flat on the surface below it (a skylight on a roof).
    """

    outline: Points
    colour: Colour
    top: float


class Roof(IntEnum):
    """The shapes of roofs."""

    FLAT = 0
    GABLE = 1
    HIP = 2


class Cover(IntEnum):
    """Material of a roof; it decides the texture, not the colour."""

    SHINGLE = 0
    METAL = 1
    MEMBRANE = 2


@dataclass(frozen=True)
class Wing:
    """One rectangle of a building, in the building's frame (pixels; u along ``angle``, v across).

    The ridge of a gable runs along u, or along v if ``across``. ``eave`` is the height of the eaves
    in metres, ``pitch`` the rise of the roof over its run.
    """

    u: float
    v: float
    length: float
    width: float
    roof: Roof
    eave: float
    pitch: float = 0.0
    across: bool = False


@dataclass(frozen=True)
class Building:
    """A building: its footprint is the union of its wings, and the highest wing gives its roof."""

    x: float
    y: float
    angle: float
    wings: tuple[Wing, ...]
    colour: Colour
    cover: Cover

    def place(self, u: npt.ArrayLike, v: npt.ArrayLike) -> Points:
        """Map points of the building's frame to (N, 2) positions on the tile."""
        return place(self.x, self.y, self.angle, u, v)


@dataclass(frozen=True)
class Tree:
    """A tree: a closed crown, or, if ``bare``, the branches of a tree that has shed its leaves."""

    x: float
    y: float
    radius: float
    height: float
    colour: Colour
    bare: bool


@dataclass(frozen=True)
class Sun:
    """Position of the sun, in degrees; ``azimuth`` is clockwise from north."""

    azimuth: float
    elevation: float

    @property
    def towards(self) -> tuple[float, float]:
        """Unit vector on the tile (x, y) that points to the sun; shadows fall the other way."""
        azimuth = math.radians(self.azimuth)
        return math.sin(azimuth), -math.cos(azimuth)

    @property
    def slope(self) -> float:
        """Metres that a ray of sunlight rises for each metre over the ground."""
        return math.tan(math.radians(self.elevation))


@dataclass(frozen=True)
class Conditions:
    """Season, air and camera of one tile."""

    green: float = 0.5  # how green the grass is, in [0, 1]
    haze: float = 0.0  # share of skylight added to the picture, in [0, 1]
    cast: Colour = (1.0, 1.0, 1.0)  # gain of each channel
    gamma: float = 1.0  # with `contrast`, the tone curve
    contrast: float = 1.0
    blur: float = 0.6  # sigma of the point spread function, pixels
    noise: float = 2.0  # sigma of the sensor noise, digital numbers
    quality: int = 90  # JPEG quality that the tile is compressed with
    ambient: float = 0.35  # brightness of a shadow relative to sunlight, in [0, 1]


@dataclass
class Scene:
    """Everything on one tile; surfaces and boxes are drawn in their order."""

    sun: Sun
    conditions: Conditions
    surfaces: list[Surface] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)


def place(x: float, y: float, angle: float, u: npt.ArrayLike, v: npt.ArrayLike) -> Points:
    """Map points (u, v) of a frame at (x, y), turned by ``angle``, to (N, 2) tile positions."""
    along, across = np.asarray(u, float), np.asarray(v, float)
    c, s = math.cos(angle), math.sin(angle)
    points = np.empty((*along.shape, 2))
    points[..., 0] = x + c * along - s * across
    points[..., 1] = y + s * along + c * across
    return points


def unturned(angle: float, x: Lengths, y: Lengths) -> tuple[Lengths, Lengths]:
    """Components (u, v) of the vector (x, y) in a frame turned by ``angle``."""
    # Not `@`: BLAS chooses its code, and so its rounding, by the CPU.
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, c * y - s * x


def rectangle(x: float, y: float, length: float, width: float, angle: float) -> Points:
    """The four corners, (4, 2), of a rectangle around (x, y); ``length`` runs along ``angle``."""
    a, b = length / 2, width / 2
    return place(x, y, angle, [-a, a, a, -a], [-b, -b, b, b])
