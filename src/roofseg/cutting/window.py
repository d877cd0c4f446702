"""Choose the window that a patch is cut from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Method = Literal["centre", "slid", "nudged"]


@dataclass(frozen=True)
class Crop:
    """A square window in a tile: its top-left pixel, how it was chosen, and its share of building.

    ``building_fraction`` is the number of building pixels over that of all pixels, in [0, 1].
    """

    row: int
    col: int
    method: Method
    building_fraction: float


def choose_window(
    mask: npt.NDArray[np.uint8],
    patch_size: int,
    min_fraction: float,
    nudge: tuple[int, int] | None = None,
) -> Crop:
    """Choose the window of ``patch_size`` pixels square to cut from a tile.

    This is the centre window if at least ``min_fraction`` of it is building. Otherwise it is the
    nearest window (Euclidean distance of the centres) with at least that share of building. If no
    window has that share, it is the one with the largest share, the nearest of several. Ties go to
    the smaller row, then to the smaller column. Every position is considered.

    Args:
        mask: (H, W) uint8, 0 background and 1 building
        patch_size: side of the window in pixels
        min_fraction: share of building pixels, in [0, 1]
        nudge: row and column of the top-left pixel of the window to take instead

    Raises:
        ValueError: the window does not lie within the mask
    """
    last_row, last_col = mask.shape[0] - patch_size, mask.shape[1] - patch_size
    row, col = nudge or (last_row // 2, last_col // 2)
    if not (0 <= row <= last_row and 0 <= col <= last_col):
        raise ValueError(
            f"a window of {patch_size} px at row {row}, col {col} is not within {mask.shape}"
        )
    area = patch_size**2
    fraction = np.count_nonzero(mask[row : row + patch_size, col : col + patch_size]) / area
    if nudge or fraction >= min_fraction:
        return Crop(row, col, "nudged" if nudge else "centre", fraction)

    across = (np.arange(last_col + 1) - col) ** 2
    candidates = []
    for top, counts in enumerate(window_counts(mask, patch_size)):
        # Capped at min_fraction, so that among windows that reach it only the distance counts.
        reached = np.minimum(counts / area, min_fraction)
        fullest = np.flatnonzero(reached == reached.max())
        left = fullest[np.argmin(across[fullest])]
        distance = (top - row) ** 2 + across[left]
        candidates.append((-reached[left], distance, top, left, counts[left]))
    _, _, top, left, count = min(candidates)
    method: Method = "centre" if (top, left) == (row, col) else "slid"
    return Crop(int(top), int(left), method, int(count) / area)


def window_counts(mask: npt.NDArray[np.uint8], patch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Count the building pixels in every window of ``patch_size`` pixels square.

    ``mask`` is (H, W) uint8, 0 background and 1 building. Yields, for each top row
    0 ... H - patch_size, the counts of its windows from left to right: (W - patch_size + 1,) int64.
    The counts are differences of a summed-area table (Crow 1984, "Summed-area tables for texture
    mapping"), of which only ``patch_size + 1`` rows are kept.
    """
    table = deque([np.zeros(mask.shape[1] + 1, np.int64)], maxlen=patch_size + 1)
    for line in mask:
        table.append(table[-1] + np.concatenate(([0], np.cumsum(line, dtype=np.int64))))
        if len(table) == patch_size + 1:
            strip = table[-1] - table[0]
            yield strip[patch_size:] - strip[:-patch_size]
