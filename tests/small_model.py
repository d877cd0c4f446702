"""The folder of a model as training writes it, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from roofseg.core.files import write_json
from roofseg.models.roof_model import build_model, save_model

P = 64
ENCODER = "tu-mobilenetv3_small_050"


def write_model(
    folder: Path,
    architecture: str = "unet",
    seed: int = 0,
    encoder: str = ENCODER,
    **changes: Any,
) -> Path:
    """Write model.safetensors and recipe.json, with ``changes`` to the recipe's keys."""
    torch.manual_seed(seed)
    model = build_model(architecture, encoder, dropout=0.1, patch_size=P)
    save_model(folder / "model.safetensors", model)
    record = {
        "attempt": folder.name,
        "digest": "0123456789ab",
        "dataset": "tiny",
        "patch_size": P,
        "gsd": [0.3],
        "recipe": {"architecture": architecture, "encoder": encoder, "dropout": 0.1},
    }
    write_json(folder / "recipe.json", {**record, **changes})
    return folder
