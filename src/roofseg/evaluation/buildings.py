"""Whole buildings found by a predicted mask, counted by size.

A building is a 4-connected component of the true mask; a claim is a 4-connected component of the
predicted mask. So buildings that touch count as one, and a single predicted pixel is a claim. A
building that the border of a patch cuts counts with its visible part only.

Where some pixels of the truth are unknown, a building that touches one is neither hit nor miss,
since nobody knows how far it extends. A claim is judged by its part on known pixels. It counts if
it matches a building that counts; otherwise it does not if it touches an unknown pixel, or lies
mostly on buildings that do not count.

Sources:
    A. Kirillov, K. He, R. Girshick, C. Rother and P. Dollár, Panoptic Segmentation, CVPR 2019,
        section 4.1: among segments that do not overlap, at most one can have an IoU above 0.5 with
        a given segment, so the matching is unique. F1 of the matches is their recognition quality
        (RQ).
    T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014: small, medium and large
        objects, divided at 32 x 32 and 96 x 96 px; used for tiles of unknown GSD. Its evaluation
        leaves out detections of which more than half lies on regions that are not annotated.
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

from roofseg.core.images import UNKNOWN

# Lower bounds of the size classes, by unit. In m2: sheds and garages, small houses, houses, large
# houses, and larger buildings.
CLASSES = {"m2": (0, 50, 100, 200, 400), "px": (0, 32**2, 96**2)}

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matches:
    """The n buildings and m claims of a tile that count, and which of them match.

    Attributes:
        areas: (n,) area of each building, pixels.
        found: (n,) whether a claim matches the building.
        recall: (n,) share of the building's pixels that were predicted, by any claim; in [0, 1].
        claimed_areas: (m,) area of each claim, pixels.
        confirmed: (m,) whether the claim matches a building.
    """

    areas: Integers
    found: Flags
    recall: Floats
    claimed_areas: Integers
    confirmed: Flags


def match_buildings(predicted: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Matches:
    """Match the buildings and claims whose IoU is above 0.5 (Kirillov et al. 2019).

    Args:
        predicted: (H, W), 0 background, anything else building.
        truth: (H, W), 0 background, `UNKNOWN`, anything else building.
    """
    unknown = truth == UNKNOWN
    claims, claimed_areas = _components((predicted > 0) & ~unknown)
    buildings, areas = _components((truth > 0) & ~unknown)
    both = (claims > 0) & (buildings > 0)
    # Number each pair of a building and a claim that share pixels.
    columns = max(1, len(claimed_areas))
    pairs = (buildings[both] - 1) * columns + claims[both] - 1
    numbers, shared = np.unique(pairs, return_counts=True)
    building, claim = np.divmod(numbers, columns)
    # IoU = shared / (area + claimed area - shared) > 1 / 2, in whole numbers
    match = 3 * shared > areas[building] + claimed_areas[claim]
    kept = ~_touching(buildings, len(areas), unknown)
    match &= kept[building]
    found, confirmed = np.zeros(len(areas), bool), np.zeros(len(claimed_areas), bool)
    found[building[match]] = confirmed[claim[match]] = True
    covered = np.bincount(building, weights=shared, minlength=len(areas))
    on_left_out = np.bincount(claim, weights=shared * ~kept[building], minlength=len(claimed_areas))
    judged = confirmed | ~(
        _touching(claims, len(claimed_areas), unknown) | (2 * on_left_out > claimed_areas)
    )
    return Matches(
        areas[kept],
        found[kept],
        covered[kept] / areas[kept],
        claimed_areas[judged],
        confirmed[judged],
    )


def _touching(labels: Integers, count: int, unknown: Flags) -> Flags:
    """Which of the ``count`` components share the side of a pixel with an unknown one: (count,)."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    beside = cv2.dilate(unknown.astype(np.uint8), cross) > 0
    return np.bincount(labels[beside], minlength=count + 1)[1:] > 0


def _components(mask: Flags) -> tuple[Integers, Integers]:
    """Label the components of a mask from 1 (0 is background), and count the pixels of each."""
    solid = mask.astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    return labels.astype(np.int64), stats[1:, cv2.CC_STAT_AREA].astype(np.int64)


def by_size(matches: Sequence[Matches], gsd: Sequence[float]) -> pd.DataFrame:
    """Count the buildings found and the false claims over all tiles, by size.

    Buildings and claims are each classed by their own area.

    Args:
        matches: the matches of each tile.
        gsd: ground sampling distance of each tile in metres per pixel, NaN where unknown.

    Returns:
        A row for each class of `CLASSES`: the classes in m2 if any tile has a known GSD, and those
        in px if any tile has none. Columns: unit; size, the class as text; area_from and area_to
        (NA for the last class); buildings; found; pixel_recall, the mean over buildings of the
        share of their pixels that were predicted (NaN for an empty class); claimed; false_claims,
        the number of claims that match no building.
    """
    tiles = list(zip(matches, gsd, strict=True))
    parts = {
        "m2": [(match, metres**2) for match, metres in tiles if not math.isnan(metres)],
        "px": [(match, 1.0) for match, metres in tiles if math.isnan(metres)],
    }
    return pd.concat(
        [_by_size(part, unit) for unit, part in parts.items() if part], ignore_index=True
    )


def _by_size(tiles: Sequence[tuple[Matches, float]], unit: str) -> pd.DataFrame:
    """Make the rows of one unit.

    ``tiles`` holds the matches of each tile and the area of its pixels in the unit.
    """
    bounds = CLASSES[unit]

    def classes(areas: Sequence[npt.NDArray[Any]]) -> Integers:
        return np.searchsorted(bounds, np.concatenate(areas), side="right") - 1

    def count(which: Integers, weights: Floats | None = None) -> npt.NDArray[Any]:
        return np.bincount(which, weights, len(bounds))

    building_class = classes([match.areas * pixel for match, pixel in tiles])
    claim_class = classes([match.claimed_areas * pixel for match, pixel in tiles])
    found = np.concatenate([match.found for match, _ in tiles])
    confirmed = np.concatenate([match.confirmed for match, _ in tiles])
    recall = np.concatenate([match.recall for match, _ in tiles])
    buildings = count(building_class)
    return pd.DataFrame(
        {
            "unit": unit,
            "size": [*(f"{low}-{high}" for low, high in pairwise(bounds)), f"{bounds[-1]}+"],
            "area_from": bounds,
            "area_to": pd.array([*bounds[1:], None], dtype="Int64"),
            "buildings": buildings,
            "found": count(building_class[found]),
            "pixel_recall": count(building_class, recall)
            / np.where(buildings > 0, buildings, np.nan),
            "claimed": count(claim_class),
            "false_claims": count(claim_class[~confirmed]),
        }
    )
