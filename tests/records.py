"""The record that training writes of an attempt, for tests that do not train."""

from __future__ import annotations

from typing import Any

from roofseg.priors.catalogue import PRIORS
from roofseg.recipe.params import Recipe

# The keys of a recipe that all attempts share.
SHARED = {
    "seed": 42, "epochs": 3, "draws_per_epoch": 8, "batch_size": 2, "lr": 1e-3,
    "weight_decay": 1e-4, "augmentation": "medium", "dropout": 0.3, "bce_weight": 0.5,
    "scheduler": "plateau", "plateau_factor": 0.5, "plateau_patience": 3,
    "early_stopping_patience": 4, "freeze_epochs": 0, "encoder_lr_factor": 1.0,
    "gradient_clip": 1.0, "ema_decay": None, "precision": "auto",
    "augmentation_pool": None, "algorithms": "deterministic",
}  # fmt: skip


def trained_record(
    attempt: str,
    recipe: Recipe,
    *,
    digest: str = "0123456789ab",
    dataset: str = "city",
    patch_size: int = 64,
    gsd: tuple[float, ...] = (0.3,),
    prior: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of recipe.json."""
    return {
        "attempt": attempt,
        "digest": digest,
        "training_inputs": "1" * 64,
        "dataset": dataset,
        "patch_size": patch_size,
        "gsd": list(gsd),
        "recipe": recipe.model_dump(mode="json"),
        "prior": prior or prior_record(recipe.prior),
        "result": {
            "best_epoch": 2,
            "best_val_iou": 0.5,
            "epochs_run": 3,
            "encoder_parameters": 4_000_000,
            "decoder_parameters": 1_150_000,
            "trainable_parameters": 5_150_000,
            "adapter_parameters": 150_000 if recipe.lora else 0,
            "device": "cpu",
            "processor": "AVX512",
            "precision": "bf16-mixed",
            "threads": 2,
            "torch": "2.14.1",
            "nondeterministic_operations": [],
            "failure": None,
        },
    }


def prior_record(name: str) -> dict[str, Any]:
    """What weights/NAME.json says of a prior that the project knows."""
    licence = PRIORS[name].licence
    return {
        "prior": name,
        "source": PRIORS[name].source,
        "revision": None,
        "source_sha256": None if name == "scratch" else "2" * 64,
        "licence": {"spdx": licence.spdx, "terms": licence.terms},
    }
