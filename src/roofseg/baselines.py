"""The floor that every attempt must beat: the best constant mask and the best colour threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from roofseg import metrics
from roofseg.core.images import Image
from roofseg.patches import Patch

LEVELS = 256


def channels(image: Image) -> dict[str, Image]:
    """Compute channels in which a threshold could separate roofs from ground.

    ``image`` is (H, W, 3) uint8 RGB. The channels are (H, W) uint8: ``red``, ``green``, ``blue``;
    ``brightness``, their mean; ``saturation`` of HSV; and ``excess_green``, which is
    high for plants: 2 G - R - B (Woebbecke et al. 1995, doi:10.13031/2013.27838), scaled from
    -510..510 to 0..255.
    """
    red, green, blue = np.moveaxis(image.astype(np.int16), 2, 0)
    return {
        "red": image[:, :, 0],
        "green": image[:, :, 1],
        "blue": image[:, :, 2],
        "brightness": ((red + green + blue) // 3).astype(np.uint8),
        "saturation": cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1].astype(np.uint8),
        "excess_green": ((2 * green - red - blue + 510) // 4).astype(np.uint8),
    }


def _scores(patches: Sequence[Patch], masks: Sequence[npt.NDArray[Any]]) -> dict[str, float]:
    truth = np.stack([patch.mask for patch in patches])
    table = metrics.table([patch.tile for patch in patches], np.stack(masks), truth)
    return metrics.pixel_scores(table)


def best_constant(patches: Sequence[Patch]) -> dict[str, Any]:
    """Score the better of two constant masks: building everywhere, or nowhere.

    The mask is chosen on the patches that it is scored on, so no constant mask scores higher there.

    Returns:
        ``mask`` ("all building" or "all background") and ``val``, its `metrics.pixel_scores`.
    """
    candidates = [
        {
            "mask": name,
            "val": _scores(patches, [np.full_like(patch.mask, value) for patch in patches]),
        }
        for name, value in [("all building", 1), ("all background", 0)]
    ]
    return max(candidates, key=lambda candidate: candidate["val"]["iou"])


def _ious(values: Image, mask: Image) -> dict[str, npt.NDArray[np.float64]]:
    """The IoU of one tile at each threshold t in 0..255, as two arrays (256,).

    "above" is the IoU of the mask value >= t, "below" that of the mask value < t.
    """
    roof = np.bincount(values[mask == 1], minlength=LEVELS)
    ground = np.bincount(values[mask == 0], minlength=LEVELS)
    roof_below, ground_below = (np.cumsum(part) - part for part in (roof, ground))
    roof_above, ground_above = roof.sum() - roof_below, ground.sum() - ground_below
    return {
        "above": metrics.iou(roof_above, ground_above, roof_below),
        "below": metrics.iou(roof_below, ground_below, roof_above),
    }


def colour_threshold(train: Sequence[Patch], val: Sequence[Patch]) -> dict[str, Any]:
    """Find the best colour threshold on train, by trying all, and score it on val.

    Returns:
        ``channel``, one of `channels`; ``direction`` ("above": building where value >= threshold;
        "below": building where value < threshold); ``threshold`` (0..255); ``train_iou``, its IoU
        on train (mean over tiles), the highest of all; and ``val``, its `metrics.pixel_scores`.
        Ties go to the first channel, direction and threshold.
    """
    total: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    for patch in train:
        for name, values in channels(patch.image).items():
            for direction, ious in _ious(values, patch.mask).items():
                total[name, direction] = total.get((name, direction), 0) + ious / len(train)
    (channel, direction), ious = max(total.items(), key=lambda item: item[1].max())
    threshold = int(ious.argmax())
    masks = [
        (channels(patch.image)[channel] >= threshold) == (direction == "above") for patch in val
    ]
    return {
        "channel": channel,
        "direction": direction,
        "threshold": threshold,
        "train_iou": float(ious.max()),
        "val": _scores(val, masks),
    }


def baselines(train: Sequence[Patch], val: Sequence[Patch]) -> dict[str, Any]:
    """Compute both baselines as JSON values: ``constant`` and ``colour_threshold``."""
    return {"constant": best_constant(val), "colour_threshold": colour_threshold(train, val)}
