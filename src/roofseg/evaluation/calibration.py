"""Whether probabilities mean what they say: of the pixels with 0.8, are eight in ten building?

Pixels are sorted into bins by their probability of building, and in each bin the mean probability
is held against the share that is building. The expected calibration error (ECE) is the mean over
pixels of the difference in their bin. Most pixels are far from any roof and their probabilities
near 0, so it is small for any model that is not blind; the table says where a model is too sure.

Sources:
    M. P. Naeini, G. F. Cooper and M. Hauskrecht, Obtaining Well Calibrated Probabilities Using
        Bayesian Binning, AAAI 2015: ECE, of the probability of the one class of two.
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On Calibration of Modern Neural Networks, ICML
        2017, section 2: equal bins that hold their upper ends, 15 of them; reliability diagrams.
        With more classes than two, theirs is of the probability of whichever class is predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

BINS = 15

Floats = npt.NDArray[np.float64]


def bin_pixels(probabilities: npt.NDArray[np.floating], truth: npt.NDArray[Any]) -> Floats:
    """Sort pixels into bins by their probability.

    Results of several tiles are added, so that any number of pixels takes the memory of one tile.

    Args:
        probabilities: floats in [0, 1], any shape.
        truth: same shape, 0 background and 1 building.

    Returns:
        (3, 15): pixels in each bin, the sum of their probabilities, and those that are building.
        Bin k holds k / 15 < p <= (k + 1) / 15, the first one 0 too.
    """
    chances = probabilities.ravel().astype(np.float64)
    edges = np.arange(1, BINS) / BINS
    reached = np.searchsorted(edges, chances, side="left")
    weights = (None, chances, truth.ravel() > 0)
    return np.stack([np.bincount(reached, each, BINS) for each in weights])


def reliability(pixels: Floats) -> pd.DataFrame:
    """The reliability diagram as a table.

    Args:
        pixels: (3, 15), a sum of `bin_pixels` results.

    Returns:
        15 rows with columns low and high (the bin's ends), pixels, probability (the mean) and
        building (the share of pixels that are; both NaN in a bin without pixels).
    """
    count, chances, building = pixels
    filled = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "low": np.arange(BINS) / BINS,
            "high": np.arange(1, BINS + 1) / BINS,
            "pixels": count.astype(np.int64),
            "probability": chances / filled,
            "building": building / filled,
        }
    )


def expected_calibration_error(pixels: Floats) -> float:
    """ECE, in [0, 1]: the mean over pixels of how far their bin's probability is from the truth.

    Args:
        pixels: (3, 15), a sum of `bin_pixels` results, with at least one pixel.
    """
    count, chances, building = pixels
    return float(np.abs(chances - building).sum() / count.sum())
