"""Agreement of a predicted mask with the truth: pixel counts per tile, and scores from them.

Every score is derived from the counts of each tile (tp, fp, fn, tn), as the mean over tiles (the
headline) or pooled over all pixels (comparable with published Inria figures). A score of 0/0 is 1:
an empty prediction on an empty tile scores 1, and so does the precision of an empty prediction.
Pixels that are `UNKNOWN` in the truth are not counted, whatever is predicted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.core.images import UNKNOWN

THRESHOLD = 0.5  # fixed in advance for every attempt, not chosen on val or test
"""A pixel is building where its probability is at least this."""

CURVE_THRESHOLDS = np.arange(101) / 100
"""The 101 thresholds of the precision-recall curve: 0.00, 0.01, ..., 1.00."""

COUNTS = ["tp", "fp", "fn", "tn"]

SCORED_SPLITS = {"val": "validation", "test": "test"}
"""The splits that are scored, with their full names."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def count(probabilities: Any, truth: Any) -> tuple[Any, Any, Any, Any]:
    """Count true positives, false positives, false negatives and true negatives of each tile.

    It uses only operators that NumPy arrays and torch tensors share, so training (tensors on any
    device) and the stages without torch share one implementation. A test compares it with
    ``smp.metrics.get_stats(mode="binary", threshold=0.5)``.

    Args:
        probabilities: (N, ...) floats in [0, 1], or predicted masks in {0, 1}.
        truth: (N, ...) of the same shape, 0 background, 1 building, `UNKNOWN`.

    Returns:
        tp, fp, fn, tn: four (N,) int64 arrays (tensors for tensors).
    """
    if probabilities.shape != truth.shape:
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} and truth of shape "
            f"{tuple(truth.shape)} differ"
        )
    known = (truth != UNKNOWN).reshape(len(truth), -1)
    predicted = (probabilities >= THRESHOLD).reshape(len(truth), -1) & known
    actual = (truth > 0).reshape(len(truth), -1) & known
    tp = (predicted & actual).sum(1)
    fp = predicted.sum(1) - tp
    fn = actual.sum(1) - tp
    return tp, fp, fn, known.sum(1) - tp - fp - fn


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def iou(tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike) -> Floats:
    """Intersection over union, tp / (tp + fp + fn), in [0, 1]; 1 where all three counts are 0."""
    return _ratio(tp, np.add(np.add(tp, fp), fn))


def f1(tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike) -> Floats:
    """F1 (Dice), 2 tp / (2 tp + fp + fn), in [0, 1]; equals 2 IoU / (1 + IoU)."""
    return _ratio(np.multiply(2, tp), np.add(np.add(np.multiply(2, tp), fp), fn))


def building_f1(buildings: npt.ArrayLike, found: npt.ArrayLike, claimed: npt.ArrayLike) -> Floats:
    """F1 of buildings, 2 found / (buildings + claimed), in [0, 1]; 1 where both are 0.

    Args:
        buildings: the number of buildings in the truth.
        found: the number of buildings in the truth that a predicted building matches.
        claimed: the number of predicted buildings.
    """
    return f1(found, np.subtract(claimed, found), np.subtract(buildings, found))


def precision(tp: npt.ArrayLike, fp: npt.ArrayLike) -> Floats:
    """Share of the predicted pixels that are building, tp / (tp + fp), in [0, 1]."""
    return _ratio(tp, np.add(tp, fp))


def recall(tp: npt.ArrayLike, fn: npt.ArrayLike) -> Floats:
    """Share of the building pixels that were predicted, tp / (tp + fn), in [0, 1]."""
    return _ratio(tp, np.add(tp, fn))


def table(tiles: Sequence[str], probabilities: Any, truth: Any) -> pd.DataFrame:
    """Count and score each tile.

    Args:
        tiles: N names.
        probabilities: (N, H, W) array of floats in [0, 1], or of masks in {0, 1}.
        truth: (N, H, W) array, 0 background, 1 building, `UNKNOWN`.

    Returns:
        One row per tile with columns tile, tp, fp, fn, tn (pixels), iou, f1, precision, recall.
    """
    return table_of_counts(tiles, np.stack(count(probabilities, truth), axis=1))


def table_of_counts(tiles: Sequence[str], counts: Integers) -> pd.DataFrame:
    """Score each tile from its `COUNTS`, (N, 4); returns the columns of `table`."""
    rows = pd.DataFrame({"tile": list(tiles)})
    rows[COUNTS] = counts
    return rows.assign(
        iou=iou(rows.tp, rows.fp, rows.fn),
        f1=f1(rows.tp, rows.fp, rows.fn),
        precision=precision(rows.tp, rows.fp),
        recall=recall(rows.tp, rows.fn),
    )


def pixel_scores(counts: pd.DataFrame) -> dict[str, float]:
    """Score a split from the pixel counts of its tiles (columns tp, fp, fn; one row per tile).

    Returns:
        ``iou`` and ``f1``: mean over tiles. ``iou_pooled``, ``f1_pooled``, ``precision``,
        ``recall``: from the counts summed over all tiles.
    """
    tp, fp, fn = (counts[name].sum() for name in ["tp", "fp", "fn"])
    return {
        "iou": float(iou(counts.tp, counts.fp, counts.fn).mean()),
        "f1": float(f1(counts.tp, counts.fp, counts.fn).mean()),
        "iou_pooled": float(iou(tp, fp, fn)),
        "f1_pooled": float(f1(tp, fp, fn)),
        "precision": float(precision(tp, fp)),
        "recall": float(recall(tp, fn)),
    }


def histogram(probabilities: npt.NDArray[np.floating], truth: npt.NDArray[Any]) -> Integers:
    """Count pixels between the thresholds of the precision-recall curve.

    The sum of several tiles' histograms gives the curve over all their pixels, exact at its
    thresholds, in the memory of one tile.

    Args:
        probabilities: floats in [0, 1], any shape.
        truth: same shape, 0 background, 1 building, `UNKNOWN`.

    Returns:
        (2, 102) int64. Row 0 counts background pixels, row 1 building pixels; column k counts the
        probabilities that reach exactly the first k thresholds.
    """
    known = truth != UNKNOWN
    reached = np.searchsorted(CURVE_THRESHOLDS, probabilities[known], side="right")
    building = truth[known] > 0
    columns = len(CURVE_THRESHOLDS) + 1
    return np.stack(
        [np.bincount(reached[building == kind], minlength=columns) for kind in (False, True)]
    )


def precision_recall(pixels: Integers) -> pd.DataFrame:
    """Precision and recall, pooled over pixels, at each of `CURVE_THRESHOLDS`.

    Args:
        pixels: (2, 102) int64, a sum of `histogram` results.

    Returns:
        101 rows with columns threshold, precision, recall, by rising threshold.
    """
    # Pixels at or above threshold k are those that reached at least k + 1 thresholds.
    fp, tp = pixels[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return pd.DataFrame(
        {
            "threshold": CURVE_THRESHOLDS,
            "precision": precision(tp, fp),
            "recall": recall(tp, pixels[1].sum() - tp),
        }
    )
