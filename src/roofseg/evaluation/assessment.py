"""All that evaluation measures on the patches of a split, from probabilities, truth and GSD.

To the counts and scores per tile of `roofseg.metrics` it adds precision and recall, boundary IoU
(`boundary`), buildings found (`buildings`) and calibration (`calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg import metrics
from roofseg.core.images import Image
from roofseg.evaluation import boundary, buildings, calibration
from roofseg.results.intervals import COLUMNS, STATISTICS, measured


@dataclass(frozen=True, eq=False)
class Assessment:
    """What there is to say of a split.

    Attributes:
        table: a row per tile with the columns of `metrics.table`, then precision and recall (of
            pixels); boundary_iou at 3 px, and boundary_iou_m at 1 m (NaN where the GSD is unknown);
            buildings that are there, found (matched) and claimed (predicted), and building_f1;
            ece, that of the tile's own pixels.
        sizes: `buildings.by_size` of all tiles.
        reliability: `calibration.reliability` of all pixels.
        scores: `summarise` of the table, and ``ece`` of all pixels together. That is no mean over
            tiles: errors of opposite sign in two tiles cancel in it.
    """

    table: pd.DataFrame
    sizes: pd.DataFrame
    reliability: pd.DataFrame
    scores: dict[str, float]


def assess(
    tiles: Sequence[str],
    probabilities: npt.NDArray[np.float32],
    truth: Image,
    gsd: Sequence[float],
) -> Assessment:
    """Measure the predictions of a split; masks are those at `metrics.THRESHOLD`.

    Args:
        tiles: N names.
        probabilities: (N, P, P) floats in [0, 1].
        truth: (N, P, P), 0 background and 1 building.
        gsd: N ground sampling distances in metres per pixel, NaN where unknown.
    """
    masks = probabilities >= metrics.THRESHOLD
    pairs = list(zip(masks, truth, strict=True))
    matches = [buildings.match_buildings(*pair) for pair in pairs]
    # Whole numbers stay whole beside the tiles of a table that has none.
    counted = pd.DataFrame(
        [(len(each.areas), each.found.sum(), len(each.claimed_areas)) for each in matches],
        columns=["buildings", "found", "claimed"],
        dtype="Int64",
    )
    bins = [calibration.bin_pixels(*pair) for pair in zip(probabilities, truth, strict=True)]
    table = with_rates(metrics.table(tiles, probabilities, truth)).assign(
        boundary_iou=[boundary.boundary_iou(*pair) for pair in pairs],
        boundary_iou_m=[
            boundary.boundary_iou(*pair, boundary.in_pixels(boundary.DISTANCE_M, metres))
            if metres > 0
            else float("nan")
            for pair, metres in zip(pairs, gsd, strict=True)
        ],
        **counted,
        building_f1=metrics.building_f1(counted.buildings, counted.found, counted.claimed),
        ece=[calibration.expected_calibration_error(each) for each in bins],
    )
    total = np.sum(bins, axis=0)
    return Assessment(
        table=table,
        sizes=buildings.by_size(matches, gsd),
        reliability=calibration.reliability(total),
        scores={**summarise(table), "ece": calibration.expected_calibration_error(total)},
    )


def with_rates(table: pd.DataFrame) -> pd.DataFrame:
    """A table of tiles (columns tp, fp, fn; as of `metrics.table`) with precision and recall."""
    return table.assign(
        precision=metrics.precision(table.tp, table.fp), recall=metrics.recall(table.tp, table.fn)
    )


def summarise(table: pd.DataFrame) -> dict[str, float]:
    """Scores of a split: those of `intervals.STATISTICS` whose columns the table has for all tiles.

    ``boundary_iou``, ``boundary_iou_m`` and ``building_f1`` are means over tiles;
    ``building_f1_pooled`` is that of the buildings of all tiles together.
    """
    return {
        name: float(STATISTICS[name](table[COLUMNS[name]].to_numpy(np.float64)))
        for name in measured(table)
    }
