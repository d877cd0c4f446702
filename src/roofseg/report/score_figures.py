"""Pictures of scores: every attempt with its interval, and scores against costs.

An attempt that ties with the leader is drawn as a ring. As in `roofseg.drawing`, every function
returns pixels, (H, W, 3) uint8 RGB, the same bytes for the same input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from roofseg.core.images import Image
from roofseg.drawing import rendered
from roofseg.metrics import SPLITS

GREY = "0.45"

# Columns of the cost table that scores are held against, and how an axis calls them.
COSTS = {
    "minutes": (1, "minutes of training"),
    "multiply_adds_per_megapixel": (1e-9, "multiply-adds to map a megapixel, in billions"),
}


def with_intervals(
    table: pd.DataFrame, colours: Mapping[str, str], floor: float, tiles: Mapping[str, int | None]
) -> Image:
    """IoU of every attempt on val and, once one is open, on test, with intervals; the best on top.

    Args:
        table: that of `roofseg.report.leaderboard.score_table`.
        colours: of each attempt, by its label.
        floor: the val IoU that every attempt must beat.
        tiles: the number of tiles in each split; None while nobody has opened it.

    Returns:
        (H, W, 3) uint8 RGB, 1600 px wide where test is open.
    """
    splits = [split for split in SPLITS if tiles[split]]
    rows = len(table)
    # Inches: rows and what is above and below them.
    height = 0.42 * rows + 1.7
    figure = Figure(
        figsize=(3.6 + 3.2 * len(splits), height),
        dpi=160,
        layout="constrained",
        facecolor="white",
    )
    panels = figure.subplots(1, len(splits), sharex=True, sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        _forest(axes, table, split, colours)
        count = tiles[split]
        axes.set_title(
            f"{SPLITS[split]}, {count} tile{'s' if count != 1 else ''}",
            fontweight="bold",
            loc="left",
        )
    panels[0].axvline(floor, color=GREY, linestyle=(0, (1, 2)), linewidth=1.2, zorder=0)
    panels[0].set_yticks(range(rows), table.label)
    panels[0].set_ylim(rows - 0.4, -0.6)
    handles = [
        _sample(marker="o", label="IoU, mean over tiles, with its 95 % interval"),
        _sample(marker="o", markerfacecolor="white", label="ties with the leader"),
        _sample(linestyle=(0, (4, 3)), linewidth=1, label="the leader's IoU"),
        _sample(linestyle=(0, (1, 2)), linewidth=1.2, label="floor"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return rendered(figure)


def _forest(axes: Axes, table: pd.DataFrame, split: str, colours: Mapping[str, str]) -> None:
    """One split: a row per attempt, its interval, and the numbers at the right."""
    for place, row in enumerate(table.to_dict("records")):
        score, low, high = (row[f"{split}_iou{end}"] for end in ("", "_low", "_high"))
        standing = row[f"{split}_standing"]
        beside: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "va": "center",
            "fontsize": 8,
        }
        if np.isnan(score):
            axes.text(1.03, place, standing, color=GREY, style="italic", **beside)
            continue
        colour = colours[row["label"]]
        axes.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
        axes.plot(score, place, **_marker(standing, colour))
        bounds = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        axes.text(1.03, place, f"{score:.3f}{bounds}", **beside)
        if standing in ("tie", "ahead", "leader"):
            axes.text(1.03, place + 0.36, standing, color=GREY, **{**beside, "fontsize": 7})
        if standing == "leader":
            axes.axvline(score, color=GREY, linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    axes.set_xlabel("IoU")
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def against_cost(costs: pd.DataFrame, colours: Mapping[str, str]) -> Image:
    """Val IoU with its interval against minutes of training and multiply-adds of mapping.

    Args:
        costs: that of `roofseg.report.cost_table.cost_table`.
        colours: of each attempt, by its label, in the legend's order.

    Returns:
        (H, W, 3) uint8 RGB, 1600 x 672 px.
    """
    figure = Figure(figsize=(10, 4.2), dpi=160, layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(COSTS), sharey=True)
    for axes, (column, (unit, title)) in zip(panels, COSTS.items(), strict=True):
        for row in costs.to_dict("records"):
            spent, colour = row[column] * unit, colours[row["label"]]
            axes.plot(
                [spent, spent],
                [row["val_iou_low"], row["val_iou_high"]],
                color=colour,
                linewidth=1.5,
                alpha=0.6,
            )
            axes.plot(spent, row["val_iou"], **_marker(row["val_standing"], colour))
        _logarithmic(axes, costs[column] * unit)
        axes.set_xlabel(title)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("validation IoU, with its 95 % interval")
    handles = [
        _sample(marker="o", color=colour, markersize=8, label=label)
        for label, colour in colours.items()
    ]
    if (costs.val_standing == "tie").any():
        handles.append(_sample(marker="o", markerfacecolor="white", label="ties with the leader"))
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    return rendered(figure)


def _logarithmic(axes: Axes, costs: pd.Series) -> None:
    """A logarithmic axis with plain numbers; a linear one if a cost is too small to be told."""
    if costs.min() <= 0:
        return
    axes.set_xscale("log")
    # Where all costs are alike, powers of ten would leave the axis without a number.
    subs = (1,) if costs.max() / costs.min() > 30 else (1, 2, 5)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(costs.min() / 1.6, costs.max() * 1.6)


def _marker(standing: str, colour: str) -> dict[str, Any]:
    """How an attempt's point is drawn: a ring for a tie."""
    tie = standing == "tie"
    return {
        "marker": "o",
        "markersize": 8,
        "markerfacecolor": "white" if tie else colour,
        "markeredgecolor": colour if tie else "white",
        "markeredgewidth": 2 if tie else 1,
        "zorder": 3,
    }


def _sample(**style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], **{"color": GREY, "linestyle": "none", **style})
