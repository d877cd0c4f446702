"""Figures of the studies: (H, W, 3) uint8 RGB, 1600 px wide, the same for the same input.

The figure of a study takes ``runs`` (`tables.per_run`), ``table`` (`tables.spread` by label and the
key that the study varies), ``contrasts`` or ``pairs`` (the functions of these names in `tables`),
``order``, and ``data``, which names the data that the runs are trained on, for the title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roofseg.core.images import Image
from roofseg.drawing import colour, rendered

IOU = "validation IoU (mean over tiles)"
Order = Mapping[str, int]  # the index of each label among all attempts, which decides its colour


def budget(runs: pd.DataFrame, table: pd.DataFrame, order: Order, data: str) -> Image:
    """Val IoU against the number of training tiles: means, ranges over seeds, and every run."""
    title = f"Data budget, {data}: mean and range over seeds, each run a dot"
    figure, [axes] = new_figure(title, 6.09)
    _lines(axes, runs, table, order, "tiles", sorted(table.tiles.unique()))
    axes.set_xlabel("training tiles")
    return rendered(figure)


def augmentation(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    contrasts: pd.DataFrame,
    order: Order,
    data: str,
) -> Image:
    """Val IoU under each preset; below, how much each attempt prefers the mild presets."""
    presets = list(table.augmentation.unique())
    title = f"Augmentation, {data}: mean and range over seeds, each run a dot"
    figure, [axes, below] = _two_panels(title, len(contrasts))
    _lines(axes, runs, table, order, "augmentation", presets)
    axes.set_xlabel("augmentation")
    names = [
        f"{row.label}\nminus {row.than}" if row.than else row.label
        for row in contrasts.itertuples()
    ]
    _intervals(below, contrasts, names, [colour(order[label]) for label in contrasts.label])
    below.set_xlabel("IoU under mild minus IoU under strong augmentation, with its interval")
    return rendered(figure)


def seeds(runs: pd.DataFrame, pairs: pd.DataFrame, order: Order, data: str) -> Image:
    """Val IoU of each run by attempt, with a line per seed; below, each gap with its interval."""
    title = f"Seeds, {data}: each run a dot, those of one seed joined, means as bars"
    figure, [axes, below] = _two_panels(title, len(pairs))
    table = runs.pivot(index="seed", columns="label", values="val_iou")[runs.label.unique()]
    _joined(axes, table, order, IOU)
    names = [f"{row.one}\nminus {row.other}" for row in pairs.itertuples()]
    _intervals(below, pairs, names, [colour(order[label]) for label in pairs.one])
    below.set_xlabel("difference in IoU, paired by seed: mean and interval (0 inside: a tie)")
    return rendered(figure)


def folds(
    runs: pd.DataFrame,
    pairs: pd.DataFrame,
    single_folds: pd.DataFrame,
    order: Order,
    data: str,
) -> Image:
    """IoU of each run by attempt, with a line per fold; below, each difference with its intervals.

    The tables are those of `roofseg.studies.report.cross_validation.FoldTables`.
    """
    title = f"Cross-validation, {data}: each run a dot, those of one fold joined, means as bars"
    figure, [axes, below] = _two_panels(title, len(pairs))
    table = runs.pivot(index="fold", columns="label", values="iou")[runs.label.unique()]
    _joined(axes, table, order, "out-of-fold IoU (mean over tiles)")
    for y, pair in enumerate(pairs.itertuples()):
        alone = [pair.val_low, pair.val_high]
        below.plot(alone, [y + 0.22] * 2, color="0.65", linewidth=2, solid_capstyle="butt")
        below.plot(pair.val_difference, y + 0.22, "o", color="0.65", markersize=5)
        own = single_folds[(single_folds.one == pair.one) & (single_folds.other == pair.other)]
        below.plot(own.difference, [y - 0.22] * len(own), ".", color=colour(order[pair.one]))
    names = [f"{row.one}\nminus {row.other}" for row in pairs.itertuples()]
    _intervals(below, pairs, names, [colour(order[label]) for label in pairs.one])
    below.set_xlabel(
        "difference in IoU: all tiles with interval, dots for single folds, val alone in grey"
    )
    return rendered(figure)


def new_figure(title: str, height: float, **grid: Any) -> tuple[Figure, Any]:
    """An empty figure 1600 px wide and its axes, an array.

    ``height`` is in inches of 160 px; ``grid`` goes to `Figure.subplots`.
    """
    figure = Figure(figsize=(10, height), dpi=160, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    panels = figure.subplots(squeeze=False, **grid).ravel()
    for axes in panels:
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def legend_beside(axes: Axes) -> None:
    """Put the legend of axes to their right."""
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left")


def _joined(axes: Axes, table: pd.DataFrame, order: Order, ylabel: str) -> None:
    """Draw a dot per run, a line per row of the table, and the mean of each column as a bar."""
    across, means = range(len(table.columns)), table.mean()
    for _, row in table.iterrows():
        axes.plot(across, row, color="0.75", linewidth=1, zorder=1)
    for x, label in enumerate(table):
        ink = colour(order[label])
        axes.plot(np.full(len(table), x), table[label], "o", color=ink, alpha=0.55, markersize=6)
        axes.plot([x - 0.16, x + 0.16], [means[label]] * 2, color=ink, linewidth=3, zorder=3)
    names = [f"{label}\nmean {means[label]:.3f}".replace(" (", "\n(") for label in table]
    axes.set_xticks(list(across), names)
    axes.set_xlim(-0.5, len(table.columns) - 0.5)
    axes.set_ylabel(ylabel)


def _two_panels(title: str, differences: int) -> tuple[Figure, Any]:
    """A figure with axes for runs and, below, axes for this number of differences."""
    heights = (3.4, 0.55 + 0.34 * differences)
    return new_figure(title, 0.8 + 1.15 * sum(heights), nrows=2, height_ratios=heights)


def _lines(
    axes: Axes,
    runs: pd.DataFrame,
    table: pd.DataFrame,
    order: Order,
    x: str,
    ticks: Sequence[Any],
) -> None:
    """Draw a line of means per label, bars from its worst to its best seed, and a dot per run."""
    words = isinstance(ticks[0], str)
    places = {value: place if words else value for place, value in enumerate(ticks)}
    labels = list(table.label.unique())
    # Shift each label by a share of the narrowest gap, so that bars do not cover each other.
    gap = min(np.diff(list(places.values())), default=1)
    for index, label in enumerate(labels):
        own, dots = table[table.label == label], runs[runs.label == label]
        shift = 0.05 * gap * (index - (len(labels) - 1) / 2)
        ink = colour(order[label])
        across = dots[x].map(places) + shift
        axes.plot(across, dots.val_iou, ".", color=ink, alpha=0.5, markersize=7)
        axes.errorbar(
            own[x].map(places) + shift,
            own.val_iou,
            yerr=[own.val_iou - own["min"], own["max"] - own.val_iou],
            color=ink,
            linewidth=2,
            elinewidth=1.2,
            marker="o",
            markersize=8,
            markeredgecolor="white",
            markeredgewidth=1.5,
            label=label,
            zorder=3,
        )
    axes.set_xticks(list(places.values()), list(map(str, ticks)))
    axes.set_ylabel(IOU)
    legend_beside(axes)


def _intervals(axes: Axes, table: pd.DataFrame, names: Sequence[str], inks: Sequence[str]) -> None:
    """Draw differences with their intervals, one below the other, and a line at 0.

    An interval far wider than the others is cut off and ends in an arrow: with two seeds, an
    interval can be so wide that the others would be invisible.
    """
    axes.axvline(0, color="0.3", linewidth=1, zorder=1)
    reach = table.difference.abs().max() + (table.high - table.low).median()
    if reach > 0:  # False for no rows, and for intervals that are NaN
        ends = max(table.low.min(), -reach), min(table.high.max(), reach)
        axes.set_xlim(min(ends[0], 0) - 0.05 * reach, max(ends[1], 0) + 0.05 * reach)
    for y, (row, ink) in enumerate(zip(table.itertuples(), inks, strict=True)):
        axes.plot([row.low, row.high], [y, y], color=ink, linewidth=2.5, solid_capstyle="butt")
        axes.plot(row.difference, y, "o", color=ink, markersize=8, markeredgecolor="white")
        for cut, end, arrow in ((row.low < -reach, -reach, "<"), (row.high > reach, reach, ">")):
            if cut:
                axes.plot(end, y, arrow, color=ink, markersize=9)
    axes.set_yticks(range(len(table)), list(names), fontsize=8)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
