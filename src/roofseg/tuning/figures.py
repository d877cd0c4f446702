"""Figures of tuning: val IoU against each key, and the best val IoU so far.

Every function returns (H, W, 3) uint8 RGB, the same pixels for the same input.
"""

from __future__ import annotations

from typing import get_args

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from roofseg.core.images import Image
from roofseg.drawing import colour, rendered
from roofseg.recipe.params import Augmentation, Params
from roofseg.results.disclaimers import data_label
from roofseg.studies.report.figures import IOU, legend_beside, new_figure
from roofseg.tuning.table import tuned_keys

PRESETS = get_args(Augmentation)  # from the mildest to the strongest


def figures(table: pd.DataFrame, params: Params) -> dict[str, Image]:
    """All figures by name: `against` for each tuned key, and `best_so_far` as ``best``.

    Args:
        table: `roofseg.tuning.table.tuning_table`.
        params: the parameters in force, for the names, order and colours of the attempts.
    """
    labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
    inks = {name: colour(index) for index, name in enumerate(params.attempts)}
    runs = table.assign(label=table.attempt.map(labels), ink=table.attempt.map(inks))
    heading = f"Tuning, {data_label(params.dataset, params.patch_size)}"
    by_key = {key: against(runs, key, heading) for key in tuned_keys(table)}
    return {**by_key, "best": best_so_far(runs, heading)}


def against(runs: pd.DataFrame, key: str, heading: str) -> Image:
    """Val IoU against the values of one key: a panel per attempt, a dot per run.

    Args:
        runs: `roofseg.tuning.table.tuning_table` with two more columns: the attempt's ``label``, as
            figures show it, and its colour ``ink``.
        key: a column of the table; its values are drawn at equal distances.
        heading: the start of the title, which names the data that the runs are trained on.
    """
    scored = runs.dropna(subset=["val_iou", key])
    attempts = list(scored.groupby("label", sort=False))
    title = f"{heading}: each run a dot; the other keys differ from run to run"
    figure, panels = new_figure(title, 4.5, ncols=max(1, len(attempts)), sharey=True)
    for axes, (label, own) in zip(panels, attempts, strict=False):
        _panel(axes, own, key)
        axes.set_title(label, fontsize=10)
        axes.set_xlabel(key)
    panels[0].set_ylabel(IOU)
    (mean,) = panels[0].plot([], [], color="0.3", linewidth=2, label="mean of the runs")
    figure.legend(handles=[mean], loc="outside lower center", frameon=False)
    return rendered(figure)


def _panel(axes: Axes, own: pd.DataFrame, key: str) -> None:
    ink = own.ink.iloc[0]
    values = sorted(own[key].unique(), key=_order)
    means = own.groupby(key, sort=False).val_iou.mean()
    axes.plot(range(len(values)), means.loc[values], color=ink, linewidth=2, alpha=0.6)
    dots = [values.index(value) for value in own[key]]
    axes.scatter(dots, own.val_iou, s=56, color=ink, edgecolor="white", zorder=3)
    axes.set_xlim(-0.5, len(values) - 0.5)
    # Labels as tuning.yaml writes the values: 3e-05, not 0.00003.
    labels = [value if isinstance(value, str) else f"{value:g}" for value in values]
    axes.set_xticks(range(len(values)), labels)


def _order(value: float | str) -> tuple[int, float, str]:
    """Sort numbers by size, then presets by strength, then other words (freeze_epochs: all)."""
    if value in PRESETS:
        return 1, PRESETS.index(str(value)), ""
    try:
        return 0, float(value), ""
    except ValueError:
        return 2, 0, str(value)


def best_so_far(runs: pd.DataFrame, heading: str) -> Image:
    """The best val IoU of each attempt against the number of its runs, including failed runs.

    For the arguments see `against`.
    """
    figure, [axes] = new_figure(f"{heading}: best val IoU so far", 4.5)
    for label, own in runs.dropna(subset="val_iou").groupby("label", sort=False):
        ordered = own.sort_values("number")
        axes.step(
            ordered.number,
            ordered.val_iou.cummax(),
            where="post",
            color=own.ink.iloc[0],
            linewidth=2,
            marker="o",
            markersize=7,
            markeredgecolor="white",
            label=label,
        )
    axes.set_xlabel("runs used")
    axes.set_ylabel(f"best {IOU}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_beside(axes)
    return rendered(figure)
