"""The comparison grid: tiles as rows, image, truth and attempts as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from matplotlib.ticker import MaxNLocator

from roofseg.core.images import Image
from roofseg.drawing import (
    BOTTOM,
    CAPTION,
    CELL,
    FALSE_ALARM,
    GAP,
    HIT,
    LEFT,
    MISSED,
    TOP,
    Sheet,
    colour,
    rendered,
)


@dataclass(frozen=True)
class Column:
    """A column of a comparison grid: a heading, then one picture (and caption) per tile."""

    heading: str
    pictures: Sequence[Image]
    captions: Sequence[str] = field(default_factory=tuple)


def comparison_grid(tiles: Sequence[str], columns: Sequence[Column], title: str = "") -> Image:
    """Tiles as rows beside each other in columns: image, truth, and one per attempt.

    Args:
        tiles: names of the rows.
        columns: each with one (H, W, 3) uint8 picture per tile.
        title: a line above the grid.

    Returns:
        (H, W, 3) uint8 RGB, 256 px per cell.
    """
    across, down = CELL + GAP, CELL + CAPTION + GAP
    page = Sheet(LEFT + len(columns) * across, TOP + len(tiles) * down + BOTTOM)
    page.text(LEFT, 16, title, va="top", fontsize=9, wrap=True)
    for row, tile in enumerate(tiles):
        middle = TOP + row * down + CELL / 2
        page.text(LEFT - 10, middle, tile, ha="right", va="center", rotation=90, fontsize=8)
    for index, column in enumerate(columns):
        x = LEFT + index * across
        longest = max(map(len, column.heading.splitlines()), default=0)
        page.text(
            x + CELL / 2,
            TOP - 8,
            column.heading,
            ha="center",
            va="bottom",
            fontsize=8 * min(1, 22 / max(longest, 1)),  # 22 bold letters at 8 pt fill a cell
            fontweight="bold",
            linespacing=1.3,
        )
        for row, picture in enumerate(column.pictures):
            caption = column.captions[row] if column.captions else ""
            page.picture(x, TOP + row * down, picture, caption)
    swatches = [
        Swatch(facecolor=f"#{bytes(rgb).hex()}", label=name)
        for name, rgb in {"found": HIT, "missed": MISSED, "false alarm": FALSE_ALARM}.items()
    ]
    page.figure.legend(
        handles=swatches, loc="lower center", ncols=len(swatches), frameon=False, fontsize=8
    )
    return page.rendered()


def convergence(curves: pd.DataFrame) -> Image:
    """Validation IoU by epoch, one line per attempt, its best epoch marked.

    Args:
        curves: columns attempt, epoch (from 1), val_iou; colours follow the order of attempts.

    Returns:
        (H, W, 3) uint8 RGB, 1600 x 768 px.
    """
    figure = Figure(figsize=(10, 4.8), dpi=160, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for index, (attempt, curve) in enumerate(curves.groupby("attempt", sort=False)):
        known = curve.dropna(subset="val_iou")
        line: dict[str, Any] = {"color": colour(index), "linewidth": 2}
        if known.empty:
            axes.plot([], [], label=f"{attempt} (no finite value)", **line)
            continue
        best = known.loc[known.val_iou.idxmax()]
        label = f"{attempt}  {best.val_iou:.3f} (epoch {best.epoch:.0f})"
        axes.plot(curve.epoch, curve.val_iou, label=label, **line)
        axes.plot(
            best.epoch,
            best.val_iou,
            marker="o",
            markersize=9,
            color=colour(index),
            markeredgecolor="white",
            markeredgewidth=1.5,
            zorder=3,
        )
    axes.set_xlim(left=0.5)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation IoU (mean over tiles)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        title="best epoch",
        title_fontproperties={"weight": "bold"},
        alignment="left",
    )
    return rendered(figure)
