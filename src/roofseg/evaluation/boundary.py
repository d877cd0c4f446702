"""How well the edges of a predicted mask agree with those of the truth: Boundary IoU.

The IoU of two masks hardly sees an edge that is some pixels off, least of all on a large roof;
Boundary IoU looks at nothing but the pixels near the edges.

Source: B. Cheng, R. Girshick, P. Dollár, A. C. Berg and A. Kirillov, Boundary IoU: Improving
Object-Centric Image Segmentation Evaluation, CVPR 2021, and the code published with it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from roofseg import metrics

DISTANCE = 3
"""Pixels from an edge that a boundary reaches inwards."""

DISTANCE_M = 1.0
"""The same in metres, for imagery whose ground sampling distance is known."""


def inner_boundary(mask: npt.NDArray[Any], distance: int = DISTANCE) -> npt.NDArray[np.bool_]:
    """The pixels of a mask that are within ``distance`` of background: G_d and G of the paper.

    Distance is the larger of rows and columns, as in the authors' code, which erodes by a square of
    3 x 3 px ``distance`` times. And as there, whatever lies beyond the picture is background: where
    its border cuts a footprint, that is an edge.

    Args:
        mask: (H, W), 0 background, anything else building.
        distance: pixels, at least 1; the outermost pixels of a footprint are at 1.
    """
    solid = (mask > 0).astype(np.uint8)
    square = np.ones((2 * distance + 1,) * 2, np.uint8)
    inside = cv2.erode(solid, square, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    return solid > inside


def boundary_iou(
    predicted: npt.NDArray[Any], truth: npt.NDArray[Any], distance: int = DISTANCE
) -> float:
    """IoU of the inner boundaries of two masks, in [0, 1]; 1 where neither holds anything.

    Args:
        predicted: (H, W), 0 background, anything else building.
        truth: likewise.
        distance: pixels, as for `inner_boundary`. It is the same for pictures of any size (the
            paper's is 2 % of the diagonal): an edge of a roof is as sharp in a large patch.
    """
    edges = [inner_boundary(mask, distance)[None] for mask in (predicted, truth)]
    tp, fp, fn, _ = metrics.count(edges[0], edges[1])
    return float(metrics.iou(tp, fp, fn)[0])


def in_pixels(metres: float, gsd: float) -> int:
    """A distance in metres as whole pixels of ``gsd`` metres, at least 1."""
    return max(1, round(metres / gsd))
