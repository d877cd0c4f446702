"""Street plans: a plain grid in street coordinates, bent and turned onto the tile.

The street coordinates are s along the streets and t across them, in pixels. A strict grid and
winding lanes differ only in their bend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from roofseg.synthetic.scene import Points, place


@dataclass(frozen=True)
class Plan:
    """The map from street coordinates (s, t) to the tile."""

    angle: float  # direction of the streets, radians
    bend: float  # amplitude of the bend of a street, pixels
    wave: float  # wavelength of the bend, pixels
    phase: tuple[float, float]  # phases of the bend along s and t, radians

    def at(self, s: float | np.ndarray, t: float | np.ndarray) -> Points:
        """Map street coordinates to positions on the tile, (N, 2)."""
        s, t = np.broadcast_arrays(np.asarray(s, float), np.asarray(t, float))
        turn = 2 * math.pi / self.wave
        bent_s = s + 0.5 * self.bend * np.sin(turn * t + self.phase[0])
        sway = 0.5 * np.sin(0.8 * turn * t + self.phase[0])  # so that no two streets bend alike
        bent_t = t + self.bend * np.sin(turn * s + self.phase[1] + sway)
        return place(0.0, 0.0, self.angle, np.ravel(bent_s), np.ravel(bent_t))

    def frame(self, s: float, t: float) -> tuple[float, float, float]:
        """Map one point to (x, y) on the tile and the direction of the street there (radians)."""
        here, ahead = self.at(np.array([s, s + 4]), np.array([t, t]))
        return here[0], here[1], math.atan2(ahead[1] - here[1], ahead[0] - here[0])

    def area(self, s0: float, s1: float, t0: float, t1: float) -> Points:
        """The outline, (N, 2), of a rectangle of the plan; it has enough points to follow bends."""
        steps = np.linspace(0, 1, 2 if self.bend == 0 else max(3, int(abs(s1 - s0) / 24) + 2))
        ahead, up = s0 + (s1 - s0) * steps, t0 + (t1 - t0) * steps
        s = np.concatenate([ahead, np.full(len(up), s1), ahead[::-1], np.full(len(up), s0)])
        t = np.concatenate([np.full(len(ahead), t0), up, np.full(len(ahead), t1), up[::-1]])
        return self.at(s, t)

    def line(self, s0: float, t0: float, s1: float, t1: float) -> Points:
        """Points on the tile, (N, 2), along a straight line of the plan."""
        steps = np.linspace(0, 1, max(2, int(math.hypot(s1 - s0, t1 - t0) / 16)))
        return self.at(s0 + (s1 - s0) * steps, t0 + (t1 - t0) * steps)


def normals(line: Points) -> Points:
    """Unit vectors perpendicular to a line, (N, 2), one at each of its points."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.sqrt((along**2).sum(axis=1)), 1e-9)[:, None]
    return np.stack([-along[:, 1], along[:, 0]], axis=1)
