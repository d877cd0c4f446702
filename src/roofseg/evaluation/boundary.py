"""Boundary IoU: agreement of a predicted mask with the truth near the edges of buildings.

Mask IoU barely changes when an edge is a few pixels off, least of all on a large roof. Boundary IoU
compares only the pixels near edges.

Source: B. Cheng, R. Girshick, P. Dollár, A. C. Berg and A. Kirillov, Boundary IoU: Improving
Object-Centric Image Segmentation Evaluation, CVPR 2021, and the code published with it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from roofseg import metrics
from roofseg.core.images import UNKNOWN

DISTANCE = 3
"""Width of the boundary, in pixels inwards from an edge."""

DISTANCE_M = 1.0
"""Width of the boundary in metres, for imagery whose ground sampling distance is known."""


def inner_boundary(mask: npt.NDArray[Any], distance: int = DISTANCE) -> npt.NDArray[np.bool_]:
    """Find the building pixels within ``distance`` of background.

    The paper calls this set the intersection of G_d and G. The distance is the larger of the
    differences in rows and columns, as in the authors' code, which erodes by a square of 3 x 3 px
    ``distance`` times. As in that code, everything outside the image is background, so a footprint
    that the image border cuts has an edge there.

    Args:
        mask: (H, W), 0 background, anything else building.
        distance: pixels, at least 1; the outermost pixels of a footprint have distance 1.

    Returns:
        (H, W) bool.
    """
    solid = (mask > 0).astype(np.uint8)
    inside = cv2.erode(solid, _square(distance), borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    return solid > inside


def _square(distance: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * distance + 1,) * 2, np.uint8)


def boundary_iou(
    predicted: npt.NDArray[Any], truth: npt.NDArray[Any], distance: int = DISTANCE
) -> float:
    """Compute the IoU of the inner boundaries of two masks, in [0, 1]; 1 where both are empty.

    Pixels within ``distance`` of an unknown one are not compared: nobody knows whether an edge is
    so near to them.

    Args:
        predicted: (H, W), 0 background, anything else building.
        truth: (H, W), 0 background, `UNKNOWN`, anything else building.
        distance: pixels, as for `inner_boundary`. In the paper it is 2 % of the diagonal. Here it
            does not grow with the image: roofs have equally sharp edges in a large patch.
    """
    unknown = (truth == UNKNOWN).astype(np.uint8)
    edges = [inner_boundary(mask, distance)[None] for mask in (predicted, truth)]
    near = cv2.dilate(unknown, _square(distance))[None]
    tp, fp, fn, _ = metrics.count(edges[0], np.where(near, UNKNOWN, edges[1]))
    return float(metrics.iou(tp, fp, fn)[0])


def in_pixels(metres: float, gsd: float) -> int:
    """Convert a distance in metres to a whole number of pixels of ``gsd`` metres, at least 1."""
    return max(1, round(metres / gsd))
