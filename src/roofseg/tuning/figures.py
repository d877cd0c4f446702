"""Figures of tuning, as those of `roofseg.drawing`: pixels, the same for the same input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from roofseg.drawing import Image, colour, rendered
from roofseg.recipe.params import Augmentation, Params
from roofseg.results.disclaimers import data_label
from roofseg.studies.report.figures import IOU
from roofseg.tuning.table import BROKE_OFF, DONE, PRUNED, tuned_keys

Places = Mapping[str, int]  # of the attempts in params.yaml, which decide their colours


def figures(table: pd.DataFrame, params: Params) -> dict[str, Image]:
    """`against` for each key of a `tuning_table.tuning_table`, by its name, and ``best``."""
    places = {name: index for index, name in enumerate(params.attempts)}
    labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
    title = data_label(params.dataset, params.patch_size)
    return {
        **{key: against(table, key, places, labels, title) for key in tuned_keys(table)},
        "best": best_so_far(table, places, labels, title),
    }


def against(
    table: pd.DataFrame, key: str, places: Places, labels: Mapping[str, str], title: str
) -> Image:
    """Val IoU against the values of one key: a panel per attempt, every run a dot.

    Args:
        table: `tuning_table.tuning_table`.
        key: a column of it; its values stand side by side, at equal distances.
        places: of the attempts; they give the colours.
        labels: of the attempts.
        title: of what data, for the line above.

    Returns:
        (H, W, 3) uint8 RGB, 1600 px wide.
    """
    scored = table.dropna(subset=["val_iou", key])
    attempts = list(dict.fromkeys(scored.attempt))
    figure = _figure(f"Tuning, {title}: each run a dot; the other keys differ from run to run")
    panels = figure.subplots(1, max(1, len(attempts)), sharey=True, squeeze=False)[0]
    for axes, attempt in zip(panels, attempts, strict=False):
        _panel(axes, scored[scored.attempt == attempt], key, colour(places[attempt]))
        axes.set_title(labels[attempt], fontsize=10)
        axes.set_xlabel(key)
    panels[0].set_ylabel(IOU)
    marks = [
        panels[0].plot([], [], color="0.3", linewidth=2, label="mean of whole runs")[0],
        *_marks(panels[0], scored),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    return rendered(figure)


def _panel(axes: Axes, own: pd.DataFrame, key: str, ink: str) -> None:
    values = sorted(own[key].unique(), key=_order)
    means = own[own.state == DONE].groupby(key, sort=False).val_iou.mean()
    at = [place for place, value in enumerate(values) if value in means.index]
    axes.plot(at, means[[values[place] for place in at]], color=ink, linewidth=2, alpha=0.6)
    engines = list(dict.fromkeys(own.engine))
    for (engine, state), runs in own.groupby(["engine", "state"], sort=False):
        # Side by side: a trial of a recipe that the grid has, too, would cover it.
        aside = 0.2 * (engines.index(engine) - (len(engines) - 1) / 2)
        places = [values.index(value) + aside for value in runs[key]]
        axes.plot(places, runs.val_iou, color=ink, **_mark(str(engine), str(state)))
    axes.set_xlim(-0.5, len(values) - 0.5)
    # As the values are written: 3e-05, not 0.00003.
    axes.set_xticks(
        range(len(values)), [f"{v}" if isinstance(v, str) else f"{v:g}" for v in values]
    )
    _plain(axes)


PRESETS = get_args(Augmentation)  # by strength


def _order(value: float | str) -> tuple[int, float, str]:
    """Numbers by size (words, where a key such as freeze_epochs has both), presets by strength."""
    if value in PRESETS:
        return 1, PRESETS.index(str(value)), ""
    try:
        return 0, float(value), ""
    except ValueError:
        return 2, 0, str(value)


INSIDE: dict[str, dict[str, str]] = {
    DONE: {"markeredgecolor": "white"},
    PRUNED: {"markerfacecolor": "white"},
    BROKE_OFF: {"markerfacecoloralt": "white", "fillstyle": "bottom"},
}


def _mark(engine: str, state: str) -> dict[str, Any]:
    """Whole runs are filled, pruned ones hollow, and those that broke off half of each."""
    shape = "o" if engine == "grid" else "D"
    return {"linestyle": "", "marker": shape, "markersize": 7.5, "zorder": 3, **INSIDE[state]}


def _marks(axes: Axes, scored: pd.DataFrame) -> list[Any]:
    """What the marks that are there mean."""
    found = scored[["engine", "state"]].drop_duplicates().itertuples(index=False)
    names = {"grid": "run of the grid", "optuna": "trial of Optuna"}
    return [
        axes.plot(
            [],
            [],
            color="0.3",
            label=names[each.engine] + ("" if each.state == DONE else f" ({each.state})"),
            **_mark(each.engine, each.state),
        )[0]
        for each in found
    ]


def best_so_far(
    table: pd.DataFrame, places: Places, labels: Mapping[str, str], title: str
) -> Image:
    """The best val IoU of an attempt against the runs used for it, whatever became of them.

    Args:
        table, places, labels, title: as for `against`.

    Returns:
        (H, W, 3) uint8 RGB, 1600 px wide.
    """
    figure = _figure(f"Tuning, {title}: the best so far")
    axes = figure.subplots()
    scored = table.dropna(subset="val_iou")
    for (attempt, engine), own in scored.groupby(["attempt", "engine"], sort=False):
        ordered = own.sort_values("number")
        best = ordered.val_iou.where(ordered.state == DONE).cummax().ffill().to_numpy()
        axes.step(
            ordered.number,
            best,
            where="post",
            color=colour(places[attempt]),
            linestyle="-" if engine == "grid" else "--",
            linewidth=2,
            marker="o" if engine == "grid" else "D",
            markersize=7,
            markeredgecolor="white",
            label=f"{labels[attempt]}, {engine}",
        )
    axes.set_xlabel("runs used")
    axes.set_ylabel(f"best {IOU}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left")
    _plain(axes)
    return rendered(figure)


def _figure(title: str) -> Figure:
    figure = Figure(figsize=(10, 4.5), dpi=160, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
