"""What each attempt costs, to train and to use, beside what it scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from roofseg.pages.tables import markdown_table
from roofseg.report.attempts import Entry

TEXT_COLUMNS = {"model"}


def cost_table(order: Sequence[Entry], table: pd.DataFrame) -> pd.DataFrame:
    """One row per attempt.

    Args:
        order: the attempts, the leader first.
        table: that of `roofseg.report.leaderboard.score_table`, in the same order.

    Returns:
        Columns attempt, label; total_parameters, trainable_parameters; multiply_adds_per_patch,
        multiply_adds_per_megapixel; model_bytes; seconds_per_epoch, epochs_run, minutes (of
        training, validation included), peak_memory_gb (of training);
        inference_megapixels_per_second; val_iou with its interval and val_standing;
        iou_per_hour, val_iou over hours of training (NaN where it took none to speak of).
    """
    rows = [
        {
            "attempt": entry.attempt,
            "label": entry.label,
            "total_parameters": entry.costs["total_parameters"],
            "trainable_parameters": entry.costs["trainable_parameters"],
            "multiply_adds_per_patch": entry.costs["multiply_adds_per_patch"],
            "multiply_adds_per_megapixel": entry.costs["multiply_adds_per_megapixel"],
            "model_bytes": entry.costs["model_bytes"],
            "seconds_per_epoch": entry.times["seconds_per_epoch"],
            "epochs_run": entry.training["epochs_run"],
            "minutes": entry.times["minutes"],
            "peak_memory_gb": entry.times["peak_memory_gb"],
            "inference_megapixels_per_second": entry.inference["megapixels_per_second"],
        }
        for entry in order
    ]
    scores = table[["val_iou", "val_iou_low", "val_iou_high", "val_standing"]]
    hours = table.minutes.where(table.minutes > 0) / 60
    return pd.concat([pd.DataFrame(rows), scores], axis=1).assign(
        iou_per_hour=table.val_iou / hours
    )


# Columns of costs.csv, and how pages head and show them.
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "multiply_adds_per_megapixel": ("GMAC per Mpx", lambda value: f"{value / 1e9:.1f}"),
    "model_bytes": ("model, MB", lambda value: f"{value / 1e6:.1f}"),
    "seconds_per_epoch": ("s per epoch", lambda value: f"{value:.1f}"),
    "minutes": ("minutes", lambda value: f"{value:.1f}"),
    "peak_memory_gb": ("peak memory, GB", lambda value: f"{value:.1f}"),
    "inference_megapixels_per_second": ("mapping, Mpx/s", lambda value: f"{value:.3g}"),
    "iou_per_hour": ("IoU per hour", lambda value: f"{value:.2f}"),
}


def cost_text(costs: pd.DataFrame, order: Sequence[Entry]) -> str:
    """The page costs.md: the table, and where its times were taken.

    Args:
        costs: that of `cost_table`.
        order: the attempts in the same order.
    """

    def column(key: str) -> dict[str, list[str]]:
        name, form = COSTS[key]
        return {name: ["" if pd.isna(value) else form(value) for value in costs[key]]}

    shown = pd.DataFrame(
        {
            "model": costs.attempt,
            "parameters": [f"{count / 1e6:.2f} M" for count in costs.total_parameters],
            "trained": [f"{count / 1e6:.2f} M" for count in costs.trainable_parameters],
            **column("multiply_adds_per_megapixel"),
            **column("model_bytes"),
            **column("seconds_per_epoch"),
            "epochs": costs.epochs_run,
            **column("minutes"),
            **column("peak_memory_gb"),
            **column("inference_megapixels_per_second"),
            "val IoU": [f"{iou:.3f}" for iou in costs.val_iou],
            **column("iou_per_hour"),
        }
    )
    training = _listed(
        f"{entry.training['device']} ({entry.training['precision']})" for entry in order
    )
    mapping = _listed(
        f"{entry.inference['device']} ({entry.inference['precision']})" for entry in order
    )
    size = order[0].inference["patch_size"]
    lines = [
        "# Costs",
        "",
        *markdown_table(shown, TEXT_COLUMNS),
        "",
        f"- **GMAC per Mpx**: billions of multiply-adds that a model takes to map a megapixel, in "
        f"windows of {size} x {size} px without overlap; of convolutions, matrix products and "
        "attention. The same everywhere.",
        f"- **Training** took its seconds, minutes and memory on {training}; an epoch includes "
        "validation. Memory is that of the GPU, or of the whole process on a CPU.",
        f"- **Mapping**: megapixels per second on {mapping}, without reading and writing files.",
        "- **IoU per hour** is val IoU over hours of training. It flatters whatever stops early: "
        "hold it against val IoU.",
        "- Times are those of one run on a machine that may have had other work to do.",
    ]
    return "\n".join(lines) + "\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
