"""Sliding windows over a raster, and blending of their overlapping results.

Windows of P x P pixels are spaced evenly along each axis. Neighbours share at least the given
overlap, and the outermost windows reach half of it beyond the raster, where the image is reflected.
So no pixel is predicted from the edge of a window alone. Results are blended with the weights of a
Hann window, which fall to zero at the edge, so there are no seams.

Blending is exact: where all windows give a pixel the same float32 value, the result is that value,
bit for bit. The weights of a pixel and their sums in float64 are off by some 1e-15, far less than
half a unit in the last place of float32 (3e-8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from roofseg.inference.predictor import Probabilities

OVERLAP = 0.25


@dataclass(frozen=True)
class Axis:
    """The positions of windows along one axis of a raster.

    In the methods, ``place`` is the index of a window in ``starts``.

    Args:
        length: length of the raster, pixels
        size: P, side of a window, pixels
        overlap: the least share of a window, in [0, 0.5], that two neighbours have in common
    """

    length: int
    size: int
    overlap: float = OVERLAP

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first pixel of each window, ascending; negative where it begins in the padding.

        The first window begins at or before pixel 0, and the last one ends at or after the end of
        the raster.
        """
        shared = round(self.size * self.overlap)
        padded = max(self.length + 2 * (shared // 2), self.size)
        count = math.ceil((padded - self.size) / (self.size - shared)) + 1
        first = -((padded - self.length) // 2)
        return tuple(
            first + round(place * (padded - self.size) / max(count - 1, 1))
            for place in range(count)
        )

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """The weight of each pixel in each window, (windows, P); they sum to 1 for each pixel."""
        hann = np.sin(np.pi * (np.arange(self.size) + 0.5) / self.size) ** 2
        total = np.zeros(self.starts[-1] + self.size - self.starts[0])
        for start in self.starts:
            total[self._padded(start)] += hann
        return np.stack([hann / total[self._padded(start)] for start in self.starts])

    def covering(self, first: int, end: int) -> range:
        """The windows (indexes of ``starts``) that show any pixel of ``first`` to ``end - 1``."""
        reach = [
            place
            for place, start in enumerate(self.starts)
            if start < end and start + self.size > first
        ]
        return range(reach[0], reach[-1] + 1)

    def pixels(self, place: int) -> npt.NDArray[np.intp]:
        """The pixels of the raster that a window shows, (P,), reflected beyond its ends.

        Reflection does not repeat the end pixel, as in numpy's "reflect", and goes back and forth
        in a raster that is smaller than its padding.
        """
        wanted = np.arange(self.starts[place], self.starts[place] + self.size)
        period = max(2 * (self.length - 1), 1)
        folded = wanted % period
        return np.minimum(folded, period - folded)

    def index(self, place: int, origin: int) -> slice | npt.NDArray[np.intp]:
        """`pixels` as an index into an array that begins at pixel ``origin`` of the raster."""
        start = self.starts[place]
        if start >= 0 and start + self.size <= self.length:
            return slice(start - origin, start - origin + self.size)
        return self.pixels(place) - origin

    def finished(self, place: int) -> int:
        """The number of pixels that are complete once windows 0 to ``place`` are added.

        It is 0 for a ``place`` of -1, before the first window.
        """
        if place == len(self.starts) - 1:
            return self.length
        return min(max(self.starts[place + 1], 0), self.length)

    def _padded(self, start: int) -> slice:
        return slice(start - self.starts[0], start - self.starts[0] + self.size)


class Blend:
    """Blend windows into finished rows of a strip of the raster, one row of windows at a time.

    It holds P rows of the strip in float64, whatever the height of the raster.

    Args:
        rows, cols: the windows of the whole raster
        first, end: first and end column of the strip in the raster
        channels: the shape of the results before their rows and columns, () or (C,)
    """

    def __init__(
        self, rows: Axis, cols: Axis, first: int, end: int, channels: tuple[int, ...] = ()
    ) -> None:
        self.rows, self.cols = rows, cols
        places = cols.covering(first, end)
        self._left = cols.starts[places[0]]
        self._crop = slice(first - self._left, end - self._left)
        self._done = 0
        width = cols.starts[places[-1]] + cols.size - self._left
        self._sum = np.zeros((*channels, rows.size, width))
        self._part = np.empty((*channels, rows.size, cols.size))

    def add(self, row: int, col: int, probability: Probabilities) -> None:
        """Add the result of the window with index ``row`` down and ``col`` across.

        It is (P, P) or (C, P, P). Add rows in order and call `finish` after each row. The order of
        columns within a row is free, and changes only the last bit of the result. A window that is
        not added counts as 0.
        """
        np.multiply(probability, self.cols.weights[col], out=self._part)
        self._part *= self.rows.weights[row][:, None]
        start = self.cols.starts[col] - self._left
        self._sum[..., start : start + self.cols.size] += self._part

    def finish(self, row: int) -> Probabilities:
        """End a row of windows; return the rows of the raster that it completes.

        Returns (rows, columns) or (C, rows, columns) float32 for the columns of the strip.
        """
        top, end = self.rows.starts[row], self.rows.finished(row)
        ready = self._sum[..., self._done - top : end - top, self._crop].astype(np.float32)
        self._done = end
        if row + 1 < len(self.rows.starts):
            step = self.rows.starts[row + 1] - top
            self._sum[..., :-step, :] = self._sum[..., step:, :]
            self._sum[..., -step:, :] = 0
        return ready
