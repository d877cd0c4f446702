"""Warnings that must accompany scores, in one wording for the report and the model cards."""

from __future__ import annotations

SEALED = "sealed"  # shown in place of a test score

SYNTHETIC_DATASETS = {"sample"}
SYNTHETIC = (
    "The `sample` tiles are generated, and the recipe is reduced to run on two CPU cores. These "
    "numbers show that the pipeline works; they say nothing about real roofs, or about which "
    "model is better on them."
)


def data_label(dataset: str, patch_size: int) -> str:
    """Describe the data of a figure or table, such as ``sample (synthetic), 224 px``."""
    return f"{dataset}{' (synthetic)' if dataset in SYNTHETIC_DATASETS else ''}, {patch_size} px"


def standard_caveats(dataset: str, encoders: str = "") -> dict[str, str]:
    """The warnings about scores, by name; empty if there are none.

    Args:
        dataset: the name of the dataset.
        encoders: a subject for the SAM encoders that lack SAM's weights, such as ``The encoder of
            sam_conv``; empty if there are none.
    """
    warnings = {}
    if dataset in SYNTHETIC_DATASETS:
        warnings["Synthetic"] = SYNTHETIC
    if encoders:
        warnings["No SAM weights"] = (
            f"{encoders} started from random weights, not from SAM's. Such scores show that the "
            "pipeline works; they say nothing about SAM."
        )
    return warnings
