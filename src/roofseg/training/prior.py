"""Load a prior's weights into an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from roofseg.core.weights import load_weights, read_weights
from roofseg.recipe.architectures import PRIOR_ENCODERS

if TYPE_CHECKING:
    import torch
    from torch import nn

    Tensors = dict[str, torch.Tensor]


class HasEncoder(Protocol):
    """A model with an encoder, such as RoofModel (importing that would import torch)."""

    encoder: nn.Module


def load_prior(model: HasEncoder, path: Path) -> None:
    """Load a prior's file into the encoder of ``model``; a file without tensors changes nothing.

    Raises:
        UserError: the file is missing or not safetensors, or its names or shapes are not exactly
            those of the encoder
    """
    tensors = read_weights(path)
    if not tensors:
        return
    known = PRIOR_ENCODERS.get(path.stem)
    fits = f"weights of encoder {known}" if known else "not a known prior"
    load_weights(
        model.encoder,
        tensors,
        f"{path} ({fits}) does not fit this attempt's encoder. Change its `encoder` or `prior` "
        "so that they match, or remove the file and run `dvc repro`",
    )
