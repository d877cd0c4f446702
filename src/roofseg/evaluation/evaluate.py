"""Scoring a trained model on a split: counts per tile, scores, curves, and pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from roofseg import metrics
from roofseg.core.files import atomic_write, write_json, write_text
from roofseg.core.images import Image, write_png
from roofseg.drawing import overlay, panel
from roofseg.evaluation.assessment import assess, summarise, with_rates
from roofseg.evaluation.full_tiles import full_tile_table
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.models.device import full_float32
from roofseg.patches import Patch
from roofseg.tiles.rasters import TilePair

# Digits in tables of text: far below what a single pixel of a tile changes.
FLOAT_FORMAT = "%.6f"
FULL_TILES = "_full_tiles"


def predict(
    model: nn.Module, images: Sequence[Image], *, device: str, batch_size: int
) -> npt.NDArray[np.float32]:
    """The probability of building at each pixel.

    Runs in float32 whatever the model was trained in (see `roofseg.models.device.full_float32`).

    Args:
        model: maps (B, 3, P, P) float RGB in [0, 1] to (B, 1, P, P) logits; it is put into eval
            mode and moved to ``device``.
        images: N images, each (P, P, 3) uint8 RGB.
        device: ``cpu``, ``cuda`` or ``mps``.
        batch_size: images at a time; it changes memory and speed alone.

    Returns:
        (N, P, P) float32 in [0, 1].
    """
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    batches = []
    with torch.inference_mode(), full_float32(device):
        for start in range(0, len(images), batch_size):
            batch = np.stack(images[start : start + batch_size])  # B, P, P, 3
            rgb = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float().div(255.0)
            logits = model(rgb.contiguous(memory_format=torch.channels_last))
            batches.append(logits[:, 0].float().sigmoid().cpu().numpy())
    return np.concatenate(batches)


def evaluate(
    model: nn.Module,
    splits: Mapping[str, Sequence[Patch]],
    *,
    gsd: Mapping[str, Sequence[float]],
    tiles: Mapping[str, Sequence[TilePair]],
    predictions: Path,
    results: Path,
    device: str,
    batch_size: int,
) -> dict[str, dict[str, float]]:
    """Score a model on each split and write what there is to see.

    Args:
        model: as for `predict`.
        splits: the patches of each split to score, under its name.
        gsd: the ground sampling distance of each of them in metres per pixel, NaN where unknown.
        tiles: whole tiles of splits to score too, or none. Their tables and scores are called
            SPLIT_full_tiles.
        predictions: folder for SPLIT/masks/TILE.png (0/255), SPLIT/overlays/TILE.png and
            SPLIT/panels/TILE.png (see `roofseg.drawing`); what it held before is replaced.
        results: folder for scores.json (scores by split) and the tables behind them, each with a
            column split before those of `evaluation.assessment.Assessment`: tiles.csv; sizes.csv
            (errors by size of building), reliability.csv (calibration) and pr.csv (threshold,
            precision, recall), of patches alone. Of whole tiles, tiles.csv has pixels alone.
        device, batch_size: as for `predict`.

    Returns:
        What scores.json holds: the ``scores`` of each split's assessment; of whole tiles, the
        `metrics.summarise`.

    Raises UserError for a whole tile that is damaged or holds no data; then nothing is written.
    """
    found, curves = {}, {}
    with atomic_write(predictions) as folder:
        for split, patches in splits.items():
            images = [patch.image for patch in patches]
            probabilities = predict(model, images, device=device, batch_size=batch_size)
            truth = np.stack([patch.mask for patch in patches])
            names = [patch.tile for patch in patches]
            found[split] = assess(names, probabilities, truth, gsd[split])
            pixels = [metrics.histogram(*pair) for pair in zip(probabilities, truth, strict=True)]
            curves[split] = metrics.precision_recall(np.sum(pixels, axis=0))
            _draw(folder / split, patches, probabilities >= metrics.THRESHOLD)
        tables = {split: each.table for split, each in found.items()}
        scores = {split: each.scores for split, each in found.items()}
        for split, whole in tiles.items():
            if whole:
                window = splits[split][0].mask.shape[0]
                predictor = TorchPredictor(model, window=window, device=device)
                table = with_rates(full_tile_table(predictor, whole, batch_size=batch_size))
                name = f"{split}{FULL_TILES}"
                tables[name], scores[name] = table, summarise(table)
    write_json(results / "scores.json", scores)
    _write_csv(results / "tiles.csv", tables)
    _write_csv(results / "sizes.csv", {split: each.sizes for split, each in found.items()})
    bins = {split: each.reliability for split, each in found.items()}
    _write_csv(results / "reliability.csv", bins)
    _write_csv(results / "pr.csv", curves)
    return scores


def _draw(folder: Path, patches: Sequence[Patch], masks: npt.NDArray[np.bool_]) -> None:
    for patch, mask in zip(patches, masks, strict=True):
        name = f"{patch.tile}.png"
        write_png(folder / "masks" / name, np.where(mask, 255, 0).astype(np.uint8))
        write_png(folder / "overlays" / name, overlay(patch.image, patch.mask, mask))
        write_png(folder / "panels" / name, panel(patch.image, patch.mask, mask))


def _write_csv(path: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    table = pd.concat(tables, names=["split", None]).reset_index("split")
    write_text(path, table.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n"))
