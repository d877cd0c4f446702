"""Score a trained model: write tables of scores, and pictures of its predictions.

This module does not import torch: the predictor may run in any library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg import metrics
from roofseg.core.files import atomic_write, write_json
from roofseg.core.images import Image, write_png
from roofseg.core.progress import Progress, silent
from roofseg.drawing import overlay, panel
from roofseg.evaluation.assessment import Assessment, assess
from roofseg.evaluation.full_tiles import full_tile_table
from roofseg.inference.predictor import Predictor
from roofseg.patches import Patch
from roofseg.results.intervals import known_scores
from roofseg.results.tables import write_csv
from roofseg.tiles.tile import TilePair

# Six digits are enough in CSV files: a single pixel of a tile changes earlier digits.
FLOAT_FORMAT = "%.6f"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of evaluating one model.

    Attributes:
        scores: the scores of each split by name (`Assessment.scores`). Whole tiles are scored as
            splits named SPLIT_full_tiles, which have scores of pixels only.
        tiles: a row per tile, with a column ``split`` before those of `Assessment.table`; columns
            that only patches have are empty for whole tiles.
        sizes: `Assessment.sizes` of all splits, with a column ``split``.
    """

    scores: dict[str, dict[str, float]]
    tiles: pd.DataFrame
    sizes: pd.DataFrame


def predict(
    predictor: Predictor, images: Sequence[Image], batch_size: int, progress: Progress = silent
) -> npt.NDArray[np.float32]:
    """Predict the probability of building at each pixel.

    ``images`` are N arrays (P, P, 3) uint8 RGB; ``progress`` shows how many batches are done.
    Returns (N, P, P) float32 in [0, 1].
    """
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    shown = progress(batches, "Predicting batches")
    return np.concatenate([predictor(np.stack(batch)) for batch in shown])


def evaluate(
    predictor: Predictor,
    splits: Mapping[str, Sequence[Patch]],
    *,
    tiles: Mapping[str, Sequence[TilePair]],
    predictions: Path,
    results: Path,
    batch_size: int,
    progress: Progress = silent,
) -> Evaluation:
    """Score a model on each split, and write tables and pictures.

    Args:
        predictor: the model.
        splits: the patches to score, by name of the split.
        tiles: whole tiles to score as well, by name of the split; may be empty.
        predictions: the folder for SPLIT/masks/TILE.png (0/255), SPLIT/overlays/TILE.png and
            SPLIT/panels/TILE.png (see `roofseg.drawing`); it replaces an existing folder.
        results: the folder for scores.json and, with a column ``split``, tables of `Assessment`:
            tiles.csv, sizes.csv, reliability.csv and pr.csv (its ``curve``).
        batch_size: patches or windows at a time; it changes memory and speed only.
        progress: shows how much is predicted, drawn and scored.

    Raises:
        UserError: a whole tile is damaged or holds no data; then nothing is written.
    """
    assessed: dict[str, Assessment] = {}
    with atomic_write(predictions) as folder:
        for split, patches in splits.items():
            images = [patch.image for patch in patches]
            probabilities = predict(predictor, images, batch_size, progress)
            assessed[split] = assess(patches, probabilities)
            masks = list(zip(patches, probabilities >= metrics.THRESHOLD, strict=True))
            for patch, mask in progress(masks, f"Drawing patches of {split}"):
                _draw(folder / split, patch, mask)
        whole = {
            f"{split}_full_tiles": full_tile_table(
                predictor, pairs, batch_size=batch_size, progress=progress
            )
            for split, pairs in tiles.items()
            if pairs
        }
    scores = {split: assessment.scores for split, assessment in assessed.items()}
    scores |= {name: known_scores(table) for name, table in whole.items()}
    tables = {
        "tiles": _joined({split: part.table for split, part in assessed.items()} | whole),
        "sizes": _joined({split: part.sizes for split, part in assessed.items()}),
        "reliability": _joined({split: part.reliability for split, part in assessed.items()}),
        "pr": _joined({split: part.curve for split, part in assessed.items()}),
    }
    write_json(results / "scores.json", scores)
    for name, table in tables.items():
        write_csv(results / f"{name}.csv", table, FLOAT_FORMAT)
    return Evaluation(scores, tables["tiles"], tables["sizes"])


def headline(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | str]]:
    """The IoU and F1 of val and test, from `Evaluation.scores`: what DVC lists as metrics.

    A test split that was not scored has the value ``sealed``: without it, DVC's tables would
    compare empty cells.
    """
    keys = ("iou", "f1")
    sealed = dict.fromkeys(keys, "sealed")
    return {
        split: {key: scores.get(split, sealed)[key] for key in keys} for split in ("val", "test")
    }


def _draw(folder: Path, patch: Patch, mask: npt.NDArray[np.bool_]) -> None:
    name = f"{patch.tile}.png"
    write_png(folder / "masks" / name, np.where(mask, 255, 0).astype(np.uint8))
    write_png(folder / "overlays" / name, overlay(patch.image, patch.mask, mask))
    write_png(folder / "panels" / name, panel(patch.image, patch.mask, mask))


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the tables of all splits, with a first column ``split``."""
    return pd.concat(tables, names=["split", None]).reset_index("split")
