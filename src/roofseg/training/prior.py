"""Load a prior's weights into a model."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.weights import load_weights, read_weights
from roofseg.models.roof_model import RoofModel
from roofseg.recipe.architectures import PRIOR_ENCODERS


def load_prior(model: RoofModel, path: Path, *, with_decoder: bool = False) -> None:
    """Load a prior's file into the encoder of ``model``; a file without tensors changes nothing.

    A file ``with_decoder`` holds the whole model.

    Raises:
        UserError: the file is missing or not safetensors, or its names or shapes are not exactly
            those of the encoder or the model
    """
    tensors = read_weights(path)
    if not tensors:
        return
    part = "model" if with_decoder else "encoder"
    known = PRIOR_ENCODERS.get(path.stem)
    contents = f" (weights of encoder {known})" if known else ""
    load_weights(
        model if with_decoder else model.encoder,
        tensors,
        f"{path}{contents} does not fit this attempt's {part}. Change its `encoder` or `prior` "
        "so that they match, or remove the file and run `dvc repro`",
    )
