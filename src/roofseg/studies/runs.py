"""A run of a study: its seeded subset of the training tiles, and its predictions and scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from roofseg.core.errors import UserError
from roofseg.inference.predictor import Probabilities
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.metrics import table
from roofseg.models.device import resolve_device
from roofseg.models.roof_model import RoofModel
from roofseg.patches import Patch


def subset(tiles: Iterable[str], count: int | None, seed: int) -> list[str]:
    """Sample ``count`` tiles (None: all) with a seed; the result is sorted by name.

    It has the tiles with the lowest SHA-256 of seed and name ("bottom-k sampling": Cohen and
    Kaplan, Summarizing Data using Bottom-k Sketches, PODC 2007). Subsets of one seed are nested,
    another seed gives another sample, and the result depends neither on the platform, nor on a
    library, nor on the order of ``tiles``.

    Raises:
        UserError: ``count`` is not between 1 and the number of tiles
    """
    names = sorted(tiles)
    if count is None:
        return names
    if not 1 <= count <= len(names):
        raise UserError(
            f"found a subset of {count} training tiles; expected 1 to {len(names)}, the number of "
            "training tiles"
        )
    by_hash = sorted(names, key=lambda tile: hashlib.sha256(f"{seed} {tile}".encode()).digest())
    return sorted(by_hash[:count])


def probabilities(model: RoofModel, patches: Sequence[Patch], device: str) -> Probabilities:
    """Predict patches in float32, as `roofseg.evaluation.evaluate` does.

    Args:
        model: a trained model.
        patches: patches of one size.
        device: as in params.yaml; ``auto`` picks a GPU if there is one.

    Returns:
        The probability of building at each pixel, (N, P, P) float32 in [0, 1].
    """
    window = patches[0].mask.shape[0]
    predictor = TorchPredictor(model, window=window, device=resolve_device(device))
    return np.concatenate([predictor(patch.image[None]) for patch in patches])


def tile_scores(patches: Sequence[Patch], predicted: Probabilities) -> pd.DataFrame:
    """Score predictions of patches, whose masks are the truth, from `probabilities`.

    Returns:
        `roofseg.metrics.table`: one row per patch with columns tile, tp, fp, fn, tn, iou, f1.
    """
    truth = np.stack([patch.mask for patch in patches])
    return table([patch.tile for patch in patches], predicted, truth)


def save_probabilities(folder: Path, patches: Sequence[Patch], predicted: Probabilities) -> None:
    """Write the probabilities of each patch, (P, P) float32, as ``folder``/TILE.npy."""
    folder.mkdir(parents=True)
    for patch, values in zip(patches, predicted, strict=True):
        np.save(folder / f"{patch.tile}.npy", values)
