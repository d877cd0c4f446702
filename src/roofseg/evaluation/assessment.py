"""Measure the predictions of a split, for each tile and for all tiles together.

The measurements are the counts and scores of pixels (`roofseg.metrics`), boundary IoU (`boundary`),
buildings found (`buildings`) and calibration (`calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg import metrics
from roofseg.evaluation import boundary, buildings, calibration
from roofseg.patches import Patch
from roofseg.results.intervals import known_scores


@dataclass(frozen=True, eq=False)
class Assessment:
    """The measurements of a split.

    Attributes:
        table: a row per tile, with the columns of `metrics.table` and, further,
            boundary_iou (at 3 px) and boundary_iou_m (at 1 m; NaN where the GSD is unknown);
            the numbers of buildings in the truth, of those found (matched by a predicted one) and
            of those claimed (predicted), and building_f1;
            ece over the pixels of the tile.
        sizes: `buildings.by_size` of all tiles.
        reliability: `calibration.reliability` of all pixels.
        curve: `metrics.precision_recall` of all pixels.
        scores: `known_scores` of the table, and ``ece`` over the pixels of all tiles together. That
            is not the mean over tiles, since errors of opposite sign in two tiles cancel.
    """

    table: pd.DataFrame
    sizes: pd.DataFrame
    reliability: pd.DataFrame
    curve: pd.DataFrame
    scores: dict[str, float]


def assess(patches: Sequence[Patch], probabilities: npt.NDArray[np.float32]) -> Assessment:
    """Measure the predictions of a split, with masks at `metrics.THRESHOLD`.

    Args:
        patches: N patches of P x P px.
        probabilities: (N, P, P) float32 in [0, 1].
    """
    tiles, gsd = [patch.tile for patch in patches], [patch.gsd for patch in patches]
    truth = np.stack([patch.mask for patch in patches])
    masks = probabilities >= metrics.THRESHOLD
    pairs = list(zip(masks, truth, strict=True))
    matches = [buildings.match_buildings(*pair) for pair in pairs]
    # Int64 is nullable: counts stay integers when this table is joined with one that lacks them.
    counted = pd.DataFrame(
        [(len(match.areas), match.found.sum(), len(match.claimed_areas)) for match in matches],
        columns=["buildings", "found", "claimed"],
        dtype="Int64",
    )
    bins = [calibration.bin_pixels(*pair) for pair in zip(probabilities, truth, strict=True)]
    table = metrics.table(tiles, probabilities, truth).assign(
        boundary_iou=[boundary.boundary_iou(*pair) for pair in pairs],
        boundary_iou_m=[
            boundary.boundary_iou(*pair, boundary.in_pixels(boundary.DISTANCE_M, gsd_m))
            if gsd_m > 0
            else float("nan")
            for pair, gsd_m in zip(pairs, gsd, strict=True)
        ],
        **counted,
        building_f1=metrics.building_f1(counted.buildings, counted.found, counted.claimed),
        ece=[calibration.expected_calibration_error(tile_bins) for tile_bins in bins],
    )
    total = np.sum(bins, axis=0)
    pixels = [metrics.histogram(*pair) for pair in zip(probabilities, truth, strict=True)]
    return Assessment(
        table=table,
        sizes=buildings.by_size(matches, gsd),
        reliability=calibration.reliability(total),
        curve=metrics.precision_recall(np.sum(pixels, axis=0)),
        scores={**known_scores(table), "ece": calibration.expected_calibration_error(total)},
    )
