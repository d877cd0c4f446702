"""Low-rank adaptation (LoRA) of the linear layers of a vision transformer.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1: a layer with the
frozen weight W (outputs, inputs) computes W x + (alpha / rank) B A x. Training changes only
A (rank, inputs) and B (outputs, rank). B starts at zero, so the layer first computes W x. After
training the product is added to W, and the model is an ordinary one again.

This is code of our own since the package peft requires transformers and accelerate, which the
project does not use, and gives the layers and their weights other names, by which priors and
checkpoints would not be found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 (the name that all PyTorch code uses)
from torch import nn

from roofseg.core.errors import UserError
from roofseg.recipe.lora import Lora

DELTAS = ("lora_a", "lora_b")


class AdaptedLinear(nn.Linear):
    """A linear layer with A and B beside its weight.

    They stay apart in training: in half precision W + B A would round small changes away.
    """

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    lora_scale: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return super().forward(x) + self.lora_scale * low


def adapt(encoder: nn.Module, lora: Lora) -> None:
    """Add trainable deltas to the linear layers that ``lora`` names, and freeze all other weights.

    A is random, from torch's global generator; no name or value of another weight changes.

    Raises:
        UserError: a target names no linear layer, or the rank is not low
    """
    layers = _layers(encoder, lora)
    encoder.requires_grad_(False)
    for module in encoder.modules():
        if hasattr(module, "qkv_bias_separate"):  # else timm's Eva would not call the layer qkv
            setattr(module, "qkv_bias_separate", True)  # noqa: B010 (mypy sees a tensor there)
    for layer in layers:
        weight = layer.weight
        layer.__class__ = AdaptedLinear  # not a wrapper, so that the names of the weights stay
        assert isinstance(layer, AdaptedLinear)
        layer.lora_a = nn.Parameter(weight.new_empty(lora.rank, layer.in_features))
        layer.lora_b = nn.Parameter(weight.new_zeros(layer.out_features, lora.rank))
        layer.lora_scale = lora.alpha / lora.rank
        nn.init.kaiming_uniform_(layer.lora_a, a=math.sqrt(5))  # as the authors' code, loralib


def merge(encoder: nn.Module) -> None:
    """Add the deltas to the weights of their layers, which are ordinary layers afterwards."""
    for layer in encoder.modules():
        if isinstance(layer, AdaptedLinear):
            with torch.no_grad():
                product = layer.lora_b.double() @ layer.lora_a.double()
                layer.weight += (layer.lora_scale * product).to(layer.weight.dtype)
            del layer.lora_a, layer.lora_b, layer.lora_scale
            setattr(layer, "__class__", nn.Linear)  # noqa: B010 (mypy knows only one class)
    encoder.requires_grad_(True)


def deltas(encoder: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that `adapt` added."""
    return (p for name, p in encoder.named_parameters() if is_delta(name))


def is_delta(name: str) -> bool:
    """Whether a weight of this name is one that `adapt` added."""
    return name.endswith(DELTAS)


def count(encoder: nn.Module, lora: Lora | None) -> int:
    """The number of parameters that `adapt` adds to an encoder; it need not be adapted."""
    if lora is None:
        return 0
    return sum(
        lora.rank * (layer.in_features + layer.out_features) for layer in _layers(encoder, lora)
    )


def _layers(encoder: nn.Module, lora: Lora) -> list[nn.Linear]:
    linear = {
        name: module
        for name, module in encoder.named_modules()
        # timm's attention pooling belongs to a classifier, so nothing here reads it.
        if isinstance(module, nn.Linear) and ".attn_pool." not in name
    }
    found = dict.fromkeys(name.rpartition(".")[2] for name in linear)
    for target in lora.targets:
        if target not in found:
            raise UserError(
                f"lora_targets: found {target!r}, but no linear layer of this encoder has that "
                f"name; expected some of {', '.join(found)}"
            )
    layers = [layer for name, layer in linear.items() if name.rpartition(".")[2] in lora.targets]
    smallest = min(min(layer.in_features, layer.out_features) for layer in layers)
    if lora.rank >= smallest:
        raise UserError(
            f"lora_rank: found {lora.rank}; expected less than {smallest}, the smallest number of "
            "inputs or outputs of the layers to adapt"
        )
    return layers
