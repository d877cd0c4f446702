"""The cost of training and of using each attempt."""

from __future__ import annotations

from collections.abc import Callable

from roofseg.report.attempts import Attempt

COST_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "multiply_adds_per_megapixel": ("GMAC per Mpx", lambda value: f"{value / 1e9:.1f}"),
    "model_bytes": ("model, MB", lambda value: f"{value / 1e6:.1f}"),
    "seconds_per_epoch": ("s per epoch", lambda value: f"{value:.1f}"),
    "minutes": ("minutes", lambda value: f"{value:.1f}"),
    "peak_memory_gb": ("peak memory, GB", lambda value: f"{value:.1f}"),
    "inference_megapixels_per_second": ("mapping, Mpx/s", lambda value: f"{value:.3g}"),
    "iou_per_hour": ("IoU per hour", lambda value: f"{value:.2f}"),
}
"""Keys of `cost_values` that the report shows, with their heading and the format of a value."""


def cost_values(attempt: Attempt) -> dict[str, float | None]:
    """The costs of an attempt.

    Returns:
        total_parameters, trainable_parameters; multiply_adds_per_patch,
        multiply_adds_per_megapixel; model_bytes; seconds_per_epoch, epochs_run, minutes (of
        training, validation included), peak_memory_gb (of training);
        inference_megapixels_per_second; iou_per_hour, val IoU over hours of training (None if
        training took no measurable time).
    """
    minutes = attempt.times["minutes"]
    iou = attempt.score("val", "iou").value
    return {
        "total_parameters": attempt.costs["total_parameters"],
        "trainable_parameters": attempt.costs["trainable_parameters"],
        "multiply_adds_per_patch": attempt.costs["multiply_adds_per_patch"],
        "multiply_adds_per_megapixel": attempt.costs["multiply_adds_per_megapixel"],
        "model_bytes": attempt.costs["model_bytes"],
        "seconds_per_epoch": attempt.times["seconds_per_epoch"],
        "epochs_run": attempt.training["epochs_run"],
        "minutes": minutes,
        "peak_memory_gb": attempt.times["peak_memory_gb"],
        "inference_megapixels_per_second": attempt.inference["megapixels_per_second"],
        "iou_per_hour": 60 * iou / minutes if minutes > 0 else None,
    }
