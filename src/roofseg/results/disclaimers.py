"""Warnings that must accompany scores, in one wording for the report and the model cards."""

from __future__ import annotations

from roofseg.recipe.params import Recipe

SEALED = "sealed"  # shown in place of a test score

SYNTHETIC_DATASETS = {"sample"}
SYNTHETIC = (
    "the `sample` tiles are generated, and the recipe is reduced to run on two CPU cores. These "
    "numbers show that the pipeline works; they say nothing about real roofs, or about which "
    "model is better on them."
)
WITHOUT_SAM = (
    "started from random weights, not from SAM's. Such scores show that the pipeline works; they "
    "say nothing about SAM."
)


def data_label(dataset: str, patch_size: int) -> str:
    """Describe the data of a figure or table, such as ``sample (synthetic), 224 px``."""
    return f"{dataset}{' (synthetic)' if dataset in SYNTHETIC_DATASETS else ''}, {patch_size} px"


def caveats(dataset: str, recipe: Recipe) -> dict[str, str]:
    """The warnings about the scores of one attempt, by name; empty if there are none."""
    warnings = {}
    if dataset in SYNTHETIC_DATASETS:
        warnings["Synthetic"] = SYNTHETIC
    if recipe.without_sam:
        warnings["No SAM weights"] = f"the encoder {WITHOUT_SAM}"
    return warnings
