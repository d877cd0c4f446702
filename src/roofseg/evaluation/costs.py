"""Measure the cost of a trained model: parameters, multiply-adds, bytes, and mapping speed.

Counts follow from the architecture alone and are the same on every machine. Speeds vary from run to
run, so they belong in their own file.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.models import lora
from roofseg.models.device import resolve_precision
from roofseg.models.roof_model import RoofModel
from roofseg.recipe.params import Recipe

SECONDS = 1.0
"""`time_inference` repeats a batch until this much time has passed."""


def measure(model: RoofModel, recipe: Recipe, *, weights: Path, patch_size: int) -> dict[str, int]:
    """Count the parameters, multiply-adds and bytes of a model.

    A multiply-add is one multiplication and the addition of its product, so the count is half the
    number of floating-point operations of torch's FlopCounterMode. That counts the convolutions,
    matrix products and attention of one forward pass. Normalisation, activation and resizing are
    left out: they are few operations, limited by memory speed.

    Attention over all tokens grows with the square of the area, so the multiply-adds per megapixel
    of a SAM model depend on the patch size.

    Args:
        model: the trained model; it is not changed.
        recipe: its recipe, which decides what was trained.
        weights: its model.safetensors.
        patch_size: side of a patch in pixels.

    Returns:
        ``encoder_parameters``, ``decoder_parameters``, ``total_parameters``,
        ``trainable_parameters``, ``adapter_parameters``; ``multiply_adds_per_patch``,
        ``multiply_adds_per_megapixel`` (10^6 pixels, in patches of that size); ``model_bytes``.
    """
    encoder = sum(parameter.numel() for parameter in model.encoder_parameters())
    decoder = sum(parameter.numel() for parameter in model.decoder_parameters())
    adapters = lora.count(model.encoder, recipe.lora)
    encoder_frozen = recipe.thaw_epoch is None
    per_patch = multiply_adds(model, patch_size)
    return {
        "encoder_parameters": encoder,
        "decoder_parameters": decoder,
        "total_parameters": encoder + decoder,
        "trainable_parameters": decoder + (adapters or (0 if encoder_frozen else encoder)),
        "adapter_parameters": adapters,
        "multiply_adds_per_patch": per_patch,
        "multiply_adds_per_megapixel": round(per_patch / patch_size**2 * 1e6),
        "model_bytes": weights.stat().st_size,
    }


def multiply_adds(model: nn.Module, patch_size: int) -> int:
    """Count the multiply-adds of one forward pass over one patch; ``model`` is not changed."""
    # The meta device computes nothing. On a CPU FlopCounterMode would miss the attention, whose
    # kernel it does not know.
    shapes = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(torch.empty(1, 3, patch_size, patch_size, device="meta"))
    return int(counter.get_total_flops()) // 2


def time_inference(
    model: nn.Module, *, patch_size: int, device: str, batch_size: int
) -> dict[str, float | int | str]:
    """Time how fast a model maps 8-bit pixels to probabilities in the host's memory.

    The model runs as in ``roofseg predict``, in the fastest precision of the device, but without
    reading and writing rasters and without overlap of windows. The pixels are random, since the
    speed does not depend on them, so no tile or patch is read.

    Args:
        model: maps (B, 3, P, P) float RGB in [0, 1] to (B, 1, P, P) logits; it is put into eval
            mode and moved to ``device``.
        patch_size: P, side of a window in pixels.
        device: ``cpu``, ``cuda`` or ``mps``.
        batch_size: windows at a time.

    Returns:
        ``megapixels_per_second`` (10^6 pixels, in the batch of median duration), and the
        conditions: ``device``, ``precision``, ``threads`` (of the CPU), ``batch_size``,
        ``patch_size``.
    """
    precision = resolve_precision("auto", device)
    predictor = TorchPredictor(model, window=patch_size, device=device, precision=precision)
    shape = (batch_size, patch_size, patch_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    predictor(images)  # warm-up: the first batch selects kernels and allocates memory
    times: list[float] = []
    while sum(times) < SECONDS:
        start = time.perf_counter()
        predictor(images)
        times.append(time.perf_counter() - start)
    pixels = batch_size * patch_size**2
    return {
        "megapixels_per_second": float(f"{pixels / 1e6 / statistics.median(times):.3g}"),
        "device": device,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "patch_size": patch_size,
    }
