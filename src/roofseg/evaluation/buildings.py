"""Whole buildings found by a predicted mask, counted by size.

A building is a 4-connected component of a mask. So buildings that touch count as one, and a single
predicted pixel counts as a claimed building. A building cut by the border of a patch counts with
the part inside.

Sources:
    A. Kirillov, K. He, R. Girshick, C. Rother and P. Dollár, Panoptic Segmentation, CVPR 2019,
        section 4.1: among segments that do not overlap, at most one can have an IoU above 0.5 with
        a given segment, so the matching is unique. F1 of the matches is their recognition quality
        (RQ).
    T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014: small, medium and large
        objects, divided at 32 x 32 and 96 x 96 px; used for tiles of unknown GSD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

# Lower bounds of the size classes, by unit. In m2: sheds and garages, small houses, houses, large
# houses, and larger buildings.
CLASSES = {"m2": (0, 50, 100, 200, 400), "px": (0, 32**2, 96**2)}

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matches:
    """The n buildings of the truth, the m claimed by a prediction, and which of them match.

    ``areas`` (n,) and ``claimed_areas`` (m,) are in pixels; ``found`` (n,) and ``confirmed`` (m,)
    flag the matched ones; ``recall`` (n,) in [0, 1] is the share of each building's pixels that
    were predicted, in any component.
    """

    areas: Integers
    found: Flags
    recall: Floats
    claimed_areas: Integers
    confirmed: Flags


def match_buildings(predicted: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Matches:
    """Match the buildings of two masks whose IoU is above 0.5 (Kirillov et al. 2019).

    Args:
        predicted: (H, W), 0 background, anything else building.
        truth: likewise.
    """
    claims, claimed_areas = _components(predicted)
    buildings, areas = _components(truth)
    both = (claims > 0) & (buildings > 0)
    # Number each pair of a building and a claim that share pixels.
    columns = max(1, len(claimed_areas))
    pairs = (buildings[both] - 1) * columns + claims[both] - 1
    numbers, shared = np.unique(pairs, return_counts=True)
    building, claim = np.divmod(numbers, columns)
    # IoU = shared / (area + claimed area - shared) > 1 / 2, in whole numbers
    match = 3 * shared > areas[building] + claimed_areas[claim]
    found, confirmed = np.zeros(len(areas), bool), np.zeros(len(claimed_areas), bool)
    found[building[match]] = confirmed[claim[match]] = True
    covered = np.bincount(building, weights=shared, minlength=len(areas))
    return Matches(areas, found, covered / areas, claimed_areas, confirmed)


def _components(mask: npt.NDArray[Any]) -> tuple[Integers, Integers]:
    """Label the components of a mask from 1 (0 is background), and measure the area of each."""
    solid = (mask > 0).astype(np.uint8)
    count, labels = cv2.connectedComponents(solid, connectivity=4)
    numbers = labels.astype(np.int64)
    return numbers, np.bincount(numbers.ravel(), minlength=count)[1:]


def by_size(matches: Sequence[Matches], gsd: Sequence[float]) -> pd.DataFrame:
    """Count the buildings found and falsely claimed over all tiles, by size.

    Buildings of the truth are classed by their own area, claimed ones by theirs.

    Args:
        matches: the matches of each tile.
        gsd: ground sampling distance of each tile in metres per pixel, NaN where unknown.

    Returns:
        A row for each of `CLASSES`, in m2 for tiles of known GSD and in px for the others; a unit
        that no tile has gives no rows. Columns: unit; size, the class as text; area_from and
        area_to (NA for the last class); buildings, found and pixel_recall, the mean over buildings
        of the share of their pixels that were predicted (NaN for an empty class); claimed and
        false_claims, the claims that match no building.
    """
    tiles = list(zip(matches, gsd, strict=True))
    parts = {
        "m2": [(each, metres**2) for each, metres in tiles if not math.isnan(metres)],
        "px": [(each, 1.0) for each, metres in tiles if math.isnan(metres)],
    }
    return pd.concat(
        [_by_size(part, unit) for unit, part in parts.items() if part], ignore_index=True
    )


def _by_size(tiles: Sequence[tuple[Matches, float]], unit: str) -> pd.DataFrame:
    """The rows of a unit, from the matches of its tiles and the area of a pixel of each."""
    bounds = CLASSES[unit]

    def classes(areas: Sequence[npt.NDArray[Any]]) -> Integers:
        return np.searchsorted(bounds, np.concatenate(areas), side="right") - 1

    def count(which: Integers, weights: Floats | None = None) -> npt.NDArray[Any]:
        return np.bincount(which, weights, len(bounds))

    there = classes([each.areas * pixel for each, pixel in tiles])
    claims = classes([each.claimed_areas * pixel for each, pixel in tiles])
    found = np.concatenate([each.found for each, _ in tiles])
    confirmed = np.concatenate([each.confirmed for each, _ in tiles])
    recall = np.concatenate([each.recall for each, _ in tiles])
    buildings = count(there)
    return pd.DataFrame(
        {
            "unit": unit,
            "size": [*(f"{low}-{high}" for low, high in pairwise(bounds)), f"{bounds[-1]}+"],
            "area_from": bounds,
            "area_to": pd.array([*bounds[1:], None], dtype="Int64"),
            "buildings": buildings,
            "found": count(there[found]),
            "pixel_recall": count(there, recall) / np.where(buildings > 0, buildings, np.nan),
            "claimed": count(claims),
            "false_claims": count(claims[~confirmed]),
        }
    )
