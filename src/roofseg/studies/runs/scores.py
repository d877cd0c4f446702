"""Score the trained model of a study's run on patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.metrics import COUNTS, table
from roofseg.models.device import resolve_device
from roofseg.models.roof_model import RoofModel
from roofseg.patches import Patch


def tile_scores(model: RoofModel, patches: Sequence[Patch], device: str) -> pd.DataFrame:
    """Score a model on patches, in float32, as `roofseg.evaluation.evaluate` does.

    Args:
        model: a trained model.
        patches: patches of one size; their masks are the truth.
        device: as in params.yaml; ``auto`` picks a GPU if there is one.

    Returns:
        `roofseg.metrics.table`: one row per patch with columns tile, tp, fp, fn, tn, iou, f1.
    """
    predictor = TorchPredictor(
        model, window=patches[0].mask.shape[0], device=resolve_device(device)
    )
    probabilities = np.concatenate([predictor(patch.image[None]) for patch in patches])
    truth = np.stack([patch.mask for patch in patches])
    return table([patch.tile for patch in patches], probabilities, truth)


def val_scores(model: RoofModel, patches: Sequence[Patch], device: str) -> dict[str, Any]:
    """The scores of a run's record: ``val`` (counts per tile) and ``val_iou`` (mean over tiles).

    For the arguments see `tile_scores`.
    """
    scores = tile_scores(model, patches, device)
    return {
        "val": scores[["tile", *COUNTS]].to_dict("records"),
        "val_iou": float(scores.iou.mean()),
    }
