"""Charts of a page: SVG that takes its colours from the page, so that it suits light and dark.

Matplotlib draws with stand-ins, which become CSS: lines and letters take the colour of the text
around them, grids ``var(--rule)``, the inside of hollow marks ``var(--paper)``, and the n-th
attempt ``var(--series-n)``. Letters stay letters, in the page's font. The same input gives the
same text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from roofseg.results.intervals import Interval

SERIES = 7  # colours that page.css has; further attempts take them again, with other marks
MARKS = "osD^vPX*"

# Stand-ins: colours that nothing else has, and what they become.
INK, RULE, PAPER = "#010203", "#010204", "#010205"
_CSS = {INK: "currentColor", RULE: "var(--rule)", PAPER: "var(--paper)"} | {
    f"#0102{index + 16:02x}": f"var(--series-{index})" for index in range(SERIES)
}

_BEHIND = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}  # letters, with no line through them

WIDTH = 400  # units of a chart's width: on a phone about a pixel each, on a screen 1.4
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # wider than what pages show: nothing runs over
    "font.size": 10,
    "text.color": INK,
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
    """The number of the series, as page.css counts them, of the attempt at ``index``."""
    return index % SERIES


def _colour(index: int) -> str:
    return f"#0102{series(index) + 16:02x}"


def _mark(index: int) -> str:
    return MARKS[index % len(MARKS)]


def chart(draw: Callable[[Axes], None], *, height: int, name: str) -> Markup:
    """The SVG element of what ``draw`` puts on the axes it is given.

    Args:
        draw: takes a Matplotlib axes.
        height: in units, of which the chart is `WIDTH` wide.
        name: of the chart, another for each of a page: its parts are named after it.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        figure.set_facecolor("none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)  # the same in every chart, and nobody's aim
    svg = re.sub(r"^<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", svg)
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return Markup(svg.replace("xlink:href", "href"))


@dataclass(frozen=True)
class Score:
    """One attempt's scores for `intervals`: by split, None where that is sealed."""

    name: str
    index: int  # in params.yaml, which decides the colour
    val: Interval
    test: Interval | None
    note: str = ""


def intervals(scores: Sequence[Score], floor: float) -> Markup:
    """IoU of each attempt with its interval: val filled, test hollow below it; the floor dashed."""

    def draw(axes: Axes) -> None:
        axes.axvline(floor, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        for row, score in enumerate(scores):
            colour = _colour(score.index)
            for found, y, filled in ((score.val, row, True), (score.test, row + 0.27, False)):
                if found is None:
                    continue
                if found.low == found.low:
                    axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.8)
                axes.plot(
                    found.value,
                    y,
                    marker="o",
                    markersize=6 if filled else 5.5,
                    color=colour,
                    markerfacecolor=colour if filled else PAPER,
                    markeredgewidth=1.4,
                )
            axes.annotate(
                score.name,
                (0, row - 0.3),
                xycoords=("axes fraction", "data"),
                va="center",
                bbox=_BEHIND,
            )
            if score.note:
                axes.annotate(
                    score.note,
                    (1, row - 0.3),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    ha="right",
                    fontstyle="italic",
                    bbox=_BEHIND,
                )
        axes.set_ylim(len(scores) - 0.4, -0.65)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("IoU, mean over tiles")
        axes.margins(x=0.03)

    return chart(draw, height=42 * len(scores) + 44, name="intervals")


def _lines(lines: Mapping[int, pd.DataFrame], x: str, y: str, axes: Axes) -> None:
    for index, line in lines.items():
        axes.plot(line[x], line[y], color=_colour(index))


def convergence(curves: Mapping[int, pd.DataFrame]) -> Markup:
    """Validation IoU by epoch, the best epoch marked.

    Args:
        curves: by the attempt's index; columns epoch (from 1) and val_iou.
    """

    def draw(axes: Axes) -> None:
        _lines(curves, "epoch", "val_iou", axes)
        for index, curve in curves.items():
            known = curve.dropna(subset="val_iou")
            if known.empty:
                continue
            best = known.loc[known.val_iou.idxmax()]
            axes.plot(
                best.epoch,
                best.val_iou,
                marker=_mark(index),
                markersize=7,
                color=_colour(index),
                markeredgecolor=PAPER,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="epoch", ylabel="val IoU")

    return chart(draw, height=240, name="convergence")


def precision_recall(curves: Mapping[int, pd.DataFrame]) -> Markup:
    """Precision against recall; the point of threshold 0.5 marked.

    Args:
        curves: by the attempt's index; columns threshold, precision and recall in [0, 1].
    """

    def draw(axes: Axes) -> None:
        _lines(curves, "recall", "precision", axes)
        for index, curve in curves.items():
            at = curve[np.isclose(curve.threshold, 0.5)]
            axes.plot(
                at.recall,
                at.precision,
                marker=_mark(index),
                markersize=7,
                color=_colour(index),
                markeredgecolor=PAPER,
            )
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))

    return chart(draw, height=260, name="precision-recall")


def reliability(curves: Mapping[int, pd.DataFrame]) -> Markup:
    """Share of building against the predicted probability; the diagonal is perfect calibration.

    Args:
        curves: by the attempt's index; columns probability and building in [0, 1], one row per
            bin that has pixels.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        for index, curve in curves.items():
            axes.plot(
                curve.probability,
                curve.building,
                color=_colour(index),
                marker=_mark(index),
                markersize=4,
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set(xlabel="predicted probability of building", ylabel="share that is building")

    return chart(draw, height=300, name="reliability")


def by_size(classes: Sequence[str], found: Mapping[int, Sequence[float]], unit: str) -> Markup:
    """Share of buildings found, by their size.

    Args:
        classes: the size classes, from small to large.
        found: by the attempt's index; a share in [0, 1] per class, NaN where there are none.
        unit: of their areas.
    """

    def draw(axes: Axes) -> None:
        for index, shares in found.items():
            axes.plot(
                range(len(classes)),
                list(shares),
                color=_colour(index),
                marker=_mark(index),
            )
        axes.set_xticks(range(len(classes)), classes)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel=f"area, {unit}", ylabel="share of buildings found", ylim=(-0.02, 1.02))
        axes.set_xlim(-0.3, len(classes) - 0.7)  # a class without buildings has its place too

    return chart(draw, height=230, name=f"sizes-{unit}")


def cost(points: Mapping[int, tuple[float, Interval]], label: str, name: str) -> Markup:
    """Validation IoU with its interval against a cost.

    Args:
        points: by the attempt's index; the cost and the IoU.
        label: of the axis of costs, with its unit; logarithmic where costs span a decade.
        name: of the chart.
    """

    def draw(axes: Axes) -> None:
        for index, (spent, found) in points.items():
            colour = _colour(index)
            if found.low == found.low:
                axes.plot([spent, spent], [found.low, found.high], color=colour, linewidth=1.2)
            axes.plot(
                spent,
                found.value,
                marker=_mark(index),
                markersize=7,
                color=colour,
                markeredgecolor=PAPER,
            )
        costs = [spent for spent, _ in points.values()]
        if min(costs) > 0 and max(costs) >= 10 * min(costs):
            axes.set_xscale("log")
            # Over little more than a decade, powers of ten would leave the axis without a number.
            subs = (1,) if max(costs) > 100 * min(costs) else (1, 2, 5)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlim(min(costs) / 1.5, max(costs) * 1.5)
        else:
            axes.set_xlim(0, 1.1 * max(costs) or 1)
        axes.set(xlabel=label, ylabel="val IoU")

    return chart(draw, height=230, name=name)
