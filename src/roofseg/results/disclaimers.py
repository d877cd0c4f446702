"""What a reader of scores must know first, in the words of the leaderboard and the model cards."""

from __future__ import annotations

from roofseg.recipe.params import Recipe

SEALED = "sealed"  # what stands where a test score would

SYNTHETIC_DATASETS = {"sample"}
SYNTHETIC = (
    "the `sample` tiles are generated, and the recipe is shrunken to run on two CPU cores. These "
    "numbers show that the pipeline works; they say nothing about real roofs, nor about which "
    "model is better on them."
)
WITHOUT_SAM = (
    "started from random weights, not from SAM's. Such scores show that the pipeline works, and "
    "nothing of SAM."
)


def data_label(dataset: str, patch_size: int) -> str:
    """Of what data a figure is: ``sample (synthetic), 224 px``."""
    return f"{dataset}{' (synthetic)' if dataset in SYNTHETIC_DATASETS else ''}, {patch_size} px"


def caveats(dataset: str, recipe: Recipe) -> dict[str, str]:
    """What is to be said of one attempt, under its heading; empty where there is nothing."""
    found = {}
    if dataset in SYNTHETIC_DATASETS:
        found["Synthetic"] = SYNTHETIC
    if recipe.without_sam:
        found["No SAM weights"] = f"the encoder {WITHOUT_SAM}"
    return found
