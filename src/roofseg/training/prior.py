"""Load a prior's weights into an encoder."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.weights import load_weights, read_weights
from roofseg.models.roof_model import RoofModel
from roofseg.recipe.architectures import PRIOR_ENCODERS


def load_prior(model: RoofModel, path: Path) -> None:
    """Load a prior's file into the encoder of ``model``; a file without tensors changes nothing.

    Raises:
        UserError: the file is missing or not safetensors, or its names or shapes are not exactly
            those of the encoder
    """
    tensors = read_weights(path)
    if not tensors:
        return
    encoder = PRIOR_ENCODERS.get(path.stem)
    contents = f"weights of encoder {encoder}" if encoder else "not a known prior"
    load_weights(
        model.encoder,
        tensors,
        f"{path} ({contents}) does not fit this attempt's encoder. Change its `encoder` or `prior` "
        "so that they match, or remove the file and run `dvc repro`",
    )
