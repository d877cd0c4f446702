"""The scores of a study's run: those of a model on patches, a row per tile, without pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.metrics import table
from roofseg.models.roof_model import RoofModel
from roofseg.patches import Patch


def tile_scores(model: RoofModel, patches: Sequence[Patch], device: str) -> pd.DataFrame:
    """Score a model on patches, in float32, as `roofseg.evaluation.evaluate` does.

    Returns:
        `roofseg.metrics.table`: one row per patch with columns tile, tp, fp, fn, tn, iou, f1.
    """
    predictor = TorchPredictor(model, window=patches[0].mask.shape[0], device=device)
    probabilities = np.concatenate([predictor(patch.image[None]) for patch in patches])
    truth = np.stack([patch.mask for patch in patches])
    return table([patch.tile for patch in patches], probabilities, truth)
