"""Calibration: of the pixels with a predicted probability of 0.8, are eight in ten building?

Pixels are sorted into bins by their probability of building. In each bin the mean probability is
compared with the share of pixels that are building; the expected calibration error (ECE) is the
mean of this difference over pixels. Most pixels are far from any roof and have a probability near
0, so ECE is small for any useful model; the table shows where a model is too confident.

Sources:
    M. P. Naeini, G. F. Cooper and M. Hauskrecht, Obtaining Well Calibrated Probabilities Using
        Bayesian Binning, AAAI 2015: ECE of the predicted probability of the positive class.
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On Calibration of Modern Neural Networks, ICML
        2017, section 2: 15 bins of equal width that include their upper ends; reliability diagrams.
        That paper bins the probability of the predicted class, which suits more than two classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.core.images import UNKNOWN

BINS = 15

Floats = npt.NDArray[np.float64]


def bin_pixels(probabilities: npt.NDArray[np.floating], truth: npt.NDArray[Any]) -> Floats:
    """Sort pixels into bins by their probability.

    The sum of the results of several tiles is the result for all their pixels.

    Args:
        probabilities: floats in [0, 1], any shape.
        truth: same shape, 0 background, 1 building, `UNKNOWN`: such pixels are in no bin.

    Returns:
        (3, 15) float64: the number of pixels in each bin, the sum of their probabilities, and the
        number of building pixels. Bin k holds k / 15 < p <= (k + 1) / 15; the first also holds 0.
    """
    known = truth != UNKNOWN
    values = probabilities[known].astype(np.float64)
    edges = np.arange(1, BINS) / BINS
    bins = np.searchsorted(edges, values, side="left")
    weights = (None, values, truth[known] > 0)
    return np.stack([np.bincount(bins, weight, BINS) for weight in weights])


def reliability(pixels: Floats) -> pd.DataFrame:
    """Make the reliability diagram as a table.

    Args:
        pixels: (3, 15), a sum of `bin_pixels` results.

    Returns:
        15 rows with columns low and high (the ends of the bin), pixels (their number), probability
        (their mean) and building (the share of building pixels); the last two are NaN in a bin
        without pixels.
    """
    count, probabilities, building = pixels
    filled = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "low": np.arange(BINS) / BINS,
            "high": np.arange(1, BINS + 1) / BINS,
            "pixels": count.astype(np.int64),
            "probability": probabilities / filled,
            "building": building / filled,
        }
    )


def expected_calibration_error(pixels: Floats) -> float:
    """Compute the expected calibration error, in [0, 1].

    It is the mean over pixels of the difference, in the pixel's bin, between the mean probability
    and the share of building pixels; 0 without any pixel.

    Args:
        pixels: (3, 15), a sum of `bin_pixels` results.
    """
    count, probabilities, building = pixels
    return float(np.abs(probabilities - building).sum() / max(1.0, count.sum()))
