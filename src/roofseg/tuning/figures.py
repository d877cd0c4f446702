"""Figures of tuning: val IoU against each key, and the best val IoU so far.

Every function returns (H, W, 3) uint8 RGB, the same pixels for the same input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from roofseg.drawing import Image, colour, rendered
from roofseg.recipe.params import Augmentation, Params
from roofseg.results.disclaimers import data_label
from roofseg.studies.report.figures import IOU, Order, legend_beside, new_figure
from roofseg.tuning.table import tuned_keys

PRESETS = get_args(Augmentation)  # from the mildest to the strongest


def figures(table: pd.DataFrame, params: Params) -> dict[str, Image]:
    """All figures by name: `against` for each tuned key, and `best_so_far` as ``best``.

    Args:
        table: `roofseg.tuning.table.tuning_table`.
        params: the parameters in force, for the names, order and colours of the attempts.
    """
    places = {name: index for index, name in enumerate(params.attempts)}
    labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
    title = data_label(params.dataset, params.patch_size)
    return {
        **{key: against(table, key, places, labels, title) for key in tuned_keys(table)},
        "best": best_so_far(table, places, labels, title),
    }


def against(
    table: pd.DataFrame, key: str, places: Order, labels: Mapping[str, str], title: str
) -> Image:
    """Val IoU against the values of one key: a panel per attempt, a dot per run.

    Args:
        table: `roofseg.tuning.table.tuning_table`.
        key: a column of the table; its values are drawn at equal distances.
        places: the index of each attempt in params.yaml.
        labels: each attempt's name as figures show it.
        title: the data that the runs are trained on, for the heading.
    """
    scored = table.dropna(subset=["val_iou", key])
    attempts = list(dict.fromkeys(scored.attempt))
    heading = f"Tuning, {title}: each run a dot; the other keys differ from run to run"
    figure, panels = new_figure(heading, 4.5, ncols=max(1, len(attempts)), sharey=True)
    for axes, attempt in zip(panels, attempts, strict=False):
        _panel(axes, scored[scored.attempt == attempt], key, colour(places[attempt]))
        axes.set_title(labels[attempt], fontsize=10)
        axes.set_xlabel(key)
    panels[0].set_ylabel(IOU)
    (mean,) = panels[0].plot([], [], color="0.3", linewidth=2, label="mean of the runs")
    figure.legend(handles=[mean], loc="outside lower center", frameon=False)
    return rendered(figure)


def _panel(axes: Axes, own: pd.DataFrame, key: str, ink: str) -> None:
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


def best_so_far(table: pd.DataFrame, places: Order, labels: Mapping[str, str], title: str) -> Image:
    """The best val IoU of each attempt against the number of its runs, including failed runs.

    Args:
        table, places, labels, title: see `against`.
    """
    figure, [axes] = new_figure(f"Tuning, {title}: best val IoU so far", 4.5)
    for attempt, own in table.dropna(subset="val_iou").groupby("attempt", sort=False):
        ordered = own.sort_values("number")
        axes.step(
            ordered.number,
            ordered.val_iou.cummax(),
            where="post",
            color=colour(places[attempt]),
            linewidth=2,
            marker="o",
            markersize=7,
            markeredgecolor="white",
            label=labels[attempt],
        )
    axes.set_xlabel("runs used")
    axes.set_ylabel(f"best {IOU}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_beside(axes)
    return rendered(figure)
