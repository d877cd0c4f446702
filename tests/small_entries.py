"""Attempts of a leaderboard, made from the IoU of their tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from records import SHARED, trained_record

from roofseg import metrics
from roofseg.recipe.params import Recipe
from roofseg.report.attempts import Attempt
from roofseg.report.leaderboard import Leaderboard

PIXELS = 10_000  # union of prediction and truth in each tile
FLOOR = {
    "constant": {"mask": "all building", "val": {"iou": 0.2, "f1": 0.3}},
    "colour_threshold": {
        "channel": "excess_green",
        "direction": "below",
        "threshold": 120,
        "train_iou": 0.4,
        "val": {"iou": 0.35, "f1": 0.5},
    },
}

COSTS = {
    "total_parameters": 6_000_000,
    "trainable_parameters": 5_150_000,
    "multiply_adds_per_patch": 2_500_000_000,
    "multiply_adds_per_megapixel": 50_000_000_000,
    "model_bytes": 24_000_000,
}
INFERENCE = {
    "megapixels_per_second": 2.345,
    "device": "cpu",
    "precision": "32-true",
    "threads": 2,
    "batch_size": 4,
    "patch_size": 224,
}


def recipe(**own: Any) -> Recipe:
    model = {"architecture": "unet", "encoder": "resnet34", "prior": "resnet34_imagenet"}
    return Recipe.model_validate({**SHARED, **model, **own})


def table(ious: Sequence[float], names: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of tiles with these IoUs, named t0, t1, ... unless ``names`` are given."""
    found = [round(iou * PIXELS) for iou in ious]
    return pd.DataFrame(
        {
            "tile": names or [f"t{index}" for index in range(len(ious))],
            "tp": found,
            "fp": [(PIXELS - tp) // 2 for tp in found],
            "fn": [PIXELS - tp - (PIXELS - tp) // 2 for tp in found],
            "tn": PIXELS,
        }
    )


def entry(
    name: str,
    ious: Mapping[str, Sequence[float]],
    *,
    names: Sequence[str] | None = None,
    minutes: float = 1.5,
    multiply_adds: int = COSTS["multiply_adds_per_megapixel"],
    **own: Any,
) -> Attempt:
    """An attempt with these IoU per tile, by split; ``own`` are keys of its recipe."""
    tables = {split: table(values, names) for split, values in ious.items()}
    return Attempt(
        name=name,
        index=0,
        record=trained_record(name, recipe(**own)),
        times={"minutes": minutes, "seconds_per_epoch": 20 * minutes, "peak_memory_gb": 1.5},
        scores={split: metrics.pixel_scores(rows) for split, rows in tables.items()},
        tiles=pd.concat(tables, names=["split", None]).reset_index("split"),
        curve=pd.DataFrame(),
        reliability=pd.DataFrame(),
        sizes=pd.DataFrame(),
        epochs=pd.DataFrame(),
        costs={**COSTS, "multiply_adds_per_megapixel": multiply_adds},
        inference=INFERENCE,
        looks=[],
        look_count=0,
    )


def board(*attempts: Attempt) -> Leaderboard:
    return Leaderboard("city", 64, attempts, FLOOR, seed_spread={})
