"""Draw the charts of the report as SVG whose colours come from the page, in light and dark mode.

Matplotlib draws with placeholder colours, which are then replaced by CSS: lines and letters take
the colour of the surrounding text, grids ``var(--rule)``, the inside of hollow marks
``var(--paper)``, and the n-th attempt ``var(--series-n)``. Text stays text, in the font of the
page. The same input gives the same SVG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from roofseg.results.intervals import Interval

SERIES = 7  # colours in page.css; further attempts reuse them with other marks
MARKS = "osD^vPX*"

# Placeholder colours that nothing else uses, and the CSS that replaces them.
INK, RULE, PAPER = "#010203", "#010204", "#010205"
_CSS = {INK: "currentColor", RULE: "var(--rule)", PAPER: "var(--paper)"} | {
    f"#0102{index + 16:02x}": f"var(--series-{index})" for index in range(SERIES)
}

WIDTH = 400  # width of a chart, in units of about 1 pixel on a phone and 1.4 on a screen
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text, not outlines
    "text.parse_math": False,  # a name may hold a dollar
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # wider than the page's fonts, so no label overflows
    "font.size": 10,
    "figure.facecolor": "none",
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


def series(index: int) -> int:
    """The number of the colour of an attempt in page.css; ``index`` is that of `Attempt`."""
    return index % SERIES


def _colour(index: int) -> str:
    return f"#0102{series(index) + 16:02x}"


def _marked(index: int) -> dict[str, Any]:
    """The style of a line with marks."""
    return {"color": _colour(index), "marker": MARKS[index % len(MARKS)]}


def _axes(height: int) -> Axes:
    """The axes of a new chart; ``height`` is in the units of `WIDTH`."""
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained").add_subplot()


def _svg(axes: Axes, name: str) -> Markup:
    """Make an SVG element of a chart.

    ``name`` is unique on the page; the ids of the chart's parts are derived from it.
    """
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        metadata = {"Date": None, "Creator": None}
        axes.figure.canvas.print_figure(text, format="svg", metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)  # unused ids, which repeat in every chart
    svg = re.sub(r"^<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", svg)
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return Markup(svg.replace("xlink:href", "href"))


@dataclass(frozen=True)
class Score:
    """The IoU of one attempt for `intervals`; ``test`` is None while the split is sealed."""

    name: str
    index: int  # that of `Attempt`, which decides the colour
    val: Interval
    test: Interval | None
    note: str = ""


@mpl.rc_context(_STYLE)
def intervals(scores: Sequence[Score], floor: float) -> Markup:
    """Draw the IoU of each attempt with its interval: val filled, test hollow, floor dashed."""
    axes = _axes(42 * len(scores) + 44)
    box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}  # hides lines behind a label
    label: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "bbox": box}
    axes.axvline(floor, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
    for row, score in enumerate(scores):
        colour = _colour(score.index)
        for interval, y, filled in ((score.val, row, True), (score.test, row + 0.27, False)):
            if interval is None:
                continue
            axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.8)
            axes.plot(
                interval.value,
                y,
                marker="o",
                markersize=6 if filled else 5.5,
                color=colour,
                markerfacecolor=colour if filled else PAPER,
                markeredgewidth=1.4,
            )
        axes.annotate(score.name, (0, row - 0.3), **label)
        if score.note:
            axes.annotate(score.note, (1, row - 0.3), ha="right", fontstyle="italic", **label)
    axes.set_ylim(len(scores) - 0.4, -0.65)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("IoU, mean over tiles")
    axes.margins(x=0.03)
    return _svg(axes, "intervals")


def _lines(lines: Mapping[int, pd.DataFrame], x: str, y: str, axes: Axes) -> None:
    for index, line in lines.items():
        axes.plot(line[x], line[y], color=_colour(index))


def _point(x: Any, y: Any, index: int, axes: Axes) -> None:
    axes.plot(x, y, markersize=7, markeredgecolor=PAPER, **_marked(index))


@mpl.rc_context(_STYLE)
def convergence(curves: Mapping[int, pd.DataFrame]) -> Markup:
    """Draw validation IoU by epoch, with a mark at the best epoch.

    Args:
        curves: by index of the attempt; columns epoch (from 1) and val_iou.
    """
    axes = _axes(240)
    _lines(curves, "epoch", "val_iou", axes)
    for index, curve in curves.items():
        known = curve.dropna(subset="val_iou")
        if known.empty:
            continue
        best = known.loc[known.val_iou.idxmax()]
        _point(best.epoch, best.val_iou, index, axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="epoch", ylabel="val IoU")
    return _svg(axes, "convergence")


@mpl.rc_context(_STYLE)
def precision_recall(curves: Mapping[int, pd.DataFrame]) -> Markup:
    """Draw precision against recall, with a mark at threshold 0.5.

    Args:
        curves: by index of the attempt; columns threshold, precision and recall in [0, 1].
    """
    axes = _axes(260)
    _lines(curves, "recall", "precision", axes)
    for index, curve in curves.items():
        at = curve[np.isclose(curve.threshold, 0.5)]
        _point(at.recall, at.precision, index, axes)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    return _svg(axes, "precision-recall")


@mpl.rc_context(_STYLE)
def reliability(curves: Mapping[int, pd.DataFrame]) -> Markup:
    """Draw the share of building by predicted probability; the diagonal is perfect calibration.

    Args:
        curves: by index of the attempt; columns probability and building in [0, 1], one row for
            each bin that has pixels.
    """
    axes = _axes(300)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
    for index, curve in curves.items():
        axes.plot(curve.probability, curve.building, markersize=4, **_marked(index))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="predicted probability of building", ylabel="share that is building")
    return _svg(axes, "reliability")


@mpl.rc_context(_STYLE)
def by_size(classes: Sequence[str], found: Mapping[int, Sequence[float]], unit: str) -> Markup:
    """Draw the share of buildings found by size.

    Args:
        classes: the size classes, from small to large.
        found: by index of the attempt; a share in [0, 1] for each class, NaN for an empty class.
        unit: unit of the areas.
    """
    axes = _axes(230)
    for index, shares in found.items():
        axes.plot(range(len(classes)), list(shares), **_marked(index))
    axes.set_xticks(range(len(classes)), classes)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=f"area, {unit}", ylabel="share of buildings found", ylim=(-0.02, 1.02))
    axes.set_xlim(-0.3, len(classes) - 0.7)  # an empty class keeps its place
    return _svg(axes, f"sizes-{unit}")


@mpl.rc_context(_STYLE)
def cost(points: Mapping[int, tuple[float, Interval]], label: str, name: str) -> Markup:
    """Draw validation IoU with its interval against a cost.

    Args:
        points: by index of the attempt; its cost and its IoU.
        label: label of the cost axis, with its unit. The axis is logarithmic if the greatest cost
            is at least ten times the least.
        name: name of the chart.
    """
    axes = _axes(230)
    for index, (spent, interval) in points.items():
        ends = [interval.low, interval.high]
        axes.plot([spent, spent], ends, color=_colour(index), linewidth=1.2)
        _point(spent, interval.value, index, axes)
    costs = [spent for spent, _ in points.values()]
    if min(costs) > 0 and max(costs) >= 10 * min(costs):
        axes.set_xscale("log")
        # Over little more than a decade, powers of ten alone would label one tick at most.
        subs = (1,) if max(costs) > 100 * min(costs) else (1, 2, 5)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(min(costs) / 1.5, max(costs) * 1.5)
    else:
        axes.set_xlim(0, 1.1 * max(costs) or 1)
    axes.set(xlabel=label, ylabel="val IoU")
    return _svg(axes, name)
