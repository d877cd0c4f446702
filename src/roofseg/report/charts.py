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
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from roofseg.report.attempts import Attempt
from roofseg.results.intervals import Interval

SERIES = 7  # colours in page.css; further attempts reuse them with other marks
MARKS = "osD^vPX*"

# Placeholder colours that nothing else uses, and the CSS that replaces them.
INK, RULE, PAPER = "#010203", "#010204", "#010205"
_CSS = {INK: "currentColor", RULE: "var(--rule)", PAPER: "var(--paper)"} | {
    f"#0102{index + 16:02x}": f"var(--series-{index})" for index in range(SERIES)
}

WIDTH = 400  # width of a chart in SVG units: about 1 px on a phone, 1.4 px on a desktop
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


def series(attempt: Attempt) -> int:
    """The index of an attempt's colour in page.css."""
    return attempt.index % SERIES


def _colour(attempt: Attempt) -> str:
    return f"#0102{series(attempt) + 16:02x}"


def _marked(attempt: Attempt) -> dict[str, Any]:
    """The style of a line with marks."""
    return {"color": _colour(attempt), "marker": MARKS[attempt.index % len(MARKS)]}


def _axes(height: int) -> Axes:
    """The axes of a new chart; ``height`` is in the units of `WIDTH`."""
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained").add_subplot()


def _svg(axes: Axes, name: str) -> Markup:
    """Make an SVG element of a chart.

    ``name`` is unique on the page: it seeds the ids in the SVG, so those of two charts differ.
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


@mpl.rc_context(_STYLE)
def intervals(
    attempts: Sequence[Attempt],
    values: Sequence[Mapping[str, Interval]],
    notes: Sequence[str],
    line: float,
    label: str,
) -> Markup:
    """Draw values of each attempt with their intervals: val filled, test hollow.

    Args:
        attempts: the attempts, from top to bottom.
        values: the intervals of each attempt, by split.
        notes: a note for each attempt, such as its status; may be an empty string.
        line: where to draw a dashed line.
        label: label of the axis; unique on the page.
    """
    axes = _axes(42 * len(attempts) + 44)
    box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}  # hides lines behind a label
    beside: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "bbox": box}
    axes.axvline(line, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
    for row, (attempt, own, note) in enumerate(zip(attempts, values, notes, strict=True)):
        colour = _colour(attempt)
        for split, y, filled in (("val", row, True), ("test", row + 0.27, False)):
            if split not in own:
                continue
            axes.plot([own[split].low, own[split].high], [y, y], color=colour, linewidth=1.8)
            axes.plot(
                own[split].value,
                y,
                marker="o",
                markersize=6 if filled else 5.5,
                color=colour,
                markerfacecolor=colour if filled else PAPER,
                markeredgewidth=1.4,
            )
        axes.annotate(attempt.label, (0, row - 0.3), **beside)
        if note:
            axes.annotate(note, (1, row - 0.3), ha="right", fontstyle="italic", **beside)
    axes.set_ylim(len(attempts) - 0.4, -0.65)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    axes.margins(x=0.03)
    return _svg(axes, label)


def _point(x: Any, y: Any, attempt: Attempt, axes: Axes) -> None:
    axes.plot(x, y, markersize=7, markeredgecolor=PAPER, **_marked(attempt))


@mpl.rc_context(_STYLE)
def convergence(attempts: Sequence[Attempt]) -> Markup:
    """Draw validation IoU by epoch, with a mark at the best epoch."""
    axes = _axes(240)
    for attempt in attempts:
        axes.plot(attempt.epochs.epoch, attempt.epochs.val_iou, color=_colour(attempt))
    for attempt in attempts:
        known = attempt.epochs.dropna(subset="val_iou")
        if known.empty:
            continue
        best = known.loc[known.val_iou.idxmax()]
        _point(best.epoch, best.val_iou, attempt, axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="epoch", ylabel="val IoU")
    return _svg(axes, "convergence")


@mpl.rc_context(_STYLE)
def precision_recall(attempts: Sequence[Attempt]) -> Markup:
    """Draw precision against recall, with a mark at threshold 0.5."""
    axes = _axes(260)
    for attempt in attempts:
        axes.plot(attempt.curve.recall, attempt.curve.precision, color=_colour(attempt))
    for attempt in attempts:
        at = attempt.curve[np.isclose(attempt.curve.threshold, 0.5)]
        _point(at.recall, at.precision, attempt, axes)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    return _svg(axes, "precision-recall")


@mpl.rc_context(_STYLE)
def reliability(attempts: Sequence[Attempt]) -> Markup:
    """Draw the share of building pixels against predicted probability; the diagonal is ideal."""
    axes = _axes(300)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
    for attempt in attempts:
        bins = attempt.reliability.dropna()  # drops empty bins
        axes.plot(bins.probability, bins.building, markersize=4, **_marked(attempt))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="predicted probability of building", ylabel="share that is building")
    return _svg(axes, "reliability")


@mpl.rc_context(_STYLE)
def by_size(attempts: Sequence[Attempt], unit: str, label: str) -> Markup:
    """Draw, for each size class in ``unit``, the share of its buildings that were found.

    ``label`` is the name of the unit. All attempts have the same classes.
    """
    axes = _axes(230)
    sizes = [attempt.sizes[attempt.sizes.unit == unit] for attempt in attempts]
    classes = list(sizes[0]["size"])
    for attempt, rows in zip(attempts, sizes, strict=True):
        axes.plot(range(len(rows)), list(rows.share_found), **_marked(attempt))
    axes.set_xticks(range(len(classes)), classes)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=f"area, {label}", ylabel="share of buildings found", ylim=(-0.02, 1.02))
    axes.set_xlim(-0.3, len(classes) - 0.7)  # an empty class keeps its place
    return _svg(axes, f"sizes-{label}")


@mpl.rc_context(_STYLE)
def cost(attempts: Sequence[Attempt], costs: Sequence[float], label: str, name: str) -> Markup:
    """Draw validation IoU with its interval against a cost.

    Args:
        attempts: the attempts.
        costs: the cost of each attempt.
        label: label of the cost axis, with its unit. The axis is logarithmic if the greatest cost
            is at least ten times the least.
        name: name of the chart.
    """
    axes = _axes(230)
    for attempt, spent in zip(attempts, costs, strict=True):
        score = attempt.score("val", "iou")
        axes.plot([spent] * 2, [score.low, score.high], color=_colour(attempt), linewidth=1.2)
        _point(spent, score.value, attempt, axes)
    if min(costs) > 0 and max(costs) >= 10 * min(costs):
        axes.set_xscale("log")
        # Up to a range of 100, powers of ten alone would label only one or two ticks.
        subs = (1,) if max(costs) > 100 * min(costs) else (1, 2, 5)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(min(costs) / 1.5, max(costs) * 1.5)
    else:
        axes.set_xlim(0, 1.1 * max(costs) or 1)
    axes.set(xlabel=label, ylabel="val IoU")
    return _svg(axes, name)
