"""Choose the window that a patch is cut from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Literal

import numpy as np
import numpy.typing as npt

from roofseg.core.images import UNKNOWN

MIN_LABELLED = 0.5
"""The share of a patch's pixels that should be labelled.

With less, its building fraction says little, and its score would count as much as that of a tile
with many times the pixels.
"""

Method = Literal["centre", "slid", "nudged"]


@dataclass(frozen=True)
class Crop:
    """A square window in a tile: its top-left pixel, how it was chosen, and its share of building.

    ``labelled`` is the share of its pixels that are not unknown, ``building_fraction`` the share of
    building among those; both are in [0, 1]. The latter is 0 where nothing is labelled.
    """

    row: int
    col: int
    method: Method
    building_fraction: float
    labelled: float = 1.0


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

    Shares of building are of the labelled pixels. Where some are unknown, windows with at least
    `MIN_LABELLED` of their pixels labelled come first; if there is none, those with the most.

    Args:
        mask: (H, W) uint8, 0 background, 1 building, `UNKNOWN`
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
    window = mask[row : row + patch_size, col : col + patch_size]
    known = int(np.count_nonzero(window != UNKNOWN))
    fraction, labelled = int(np.count_nonzero(window == 1)) / max(1, known), known / area
    if nudge or (fraction >= min_fraction and labelled >= MIN_LABELLED):
        return Crop(row, col, "nudged" if nudge else "centre", fraction, labelled)

    across = (np.arange(last_col + 1) - col) ** 2
    candidates = []
    unknown = mask == UNKNOWN
    known_rows: Iterable[npt.NDArray[np.int64]] = repeat(np.full(last_col + 1, area))
    if unknown.any():
        known_rows = window_counts((~unknown).astype(np.uint8), patch_size)
    building_rows = window_counts((mask == 1).astype(np.uint8), patch_size)
    for top, (counts, known_counts) in enumerate(zip(building_rows, known_rows, strict=False)):
        fractions, shares = counts / np.maximum(known_counts, 1), known_counts / area
        # Capped, so that among windows that reach both limits only the distance counts.
        enough = np.minimum(shares, MIN_LABELLED)
        reached = np.where(enough == enough.max(), np.minimum(fractions, min_fraction), -1)
        fullest = np.flatnonzero(reached == reached.max())
        left = fullest[np.argmin(across[fullest])]
        distance = (top - row) ** 2 + across[left]
        key = (-enough[left], -reached[left], distance, top, left)
        candidates.append((key, fractions[left], shares[left]))
    (*_, top, left), fraction, labelled = min(candidates)
    method: Method = "centre" if (top, left) == (row, col) else "slid"
    return Crop(int(top), int(left), method, float(fraction), float(labelled))


def window_counts(mask: npt.NDArray[np.uint8], patch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Count the pixels that are 1 in every window of ``patch_size`` pixels square.

    ``mask`` is (H, W) uint8 {0, 1}. Yields, for each top row
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
