"""What the leaderboard shows beside its table: curves and grids, as pictures and as text plots.

The text plots, CSV files that ``dvc plots`` draws, hold the attempts in the order of params.yaml:
colours follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roofseg.core.files import atomic_write
from roofseg.core.images import Image, read_image, write_png
from roofseg.drawing import colour, thirds
from roofseg.metrics import SPLITS
from roofseg.pages.tables import write_csv
from roofseg.report.attempts import Entry, expect
from roofseg.report.comparisons import floor_iou
from roofseg.report.grid import Column, comparison_grid, convergence
from roofseg.report.leaderboard_text import tile_counts
from roofseg.report.score_figures import against_cost, with_intervals

# A comparison grid of more tiles than this is no longer looked at.
MAX_ROWS = 12

# Text plots of val: the field of `Entry` and its columns that each shows.
OF_VAL = {
    "precision_recall": ("curve", ["threshold", "precision", "recall"]),
    "reliability": ("reliability", ["probability", "building", "pixels"]),
    "sizes": ("sizes", ["size", "buildings", "share_found", "pixel_recall"]),
}


def write_plots(
    plots: Path,
    entries: Sequence[Entry],
    table: pd.DataFrame,
    costs: pd.DataFrame,
    floor: Mapping[str, Any],
    dataset: str,
    predictions: Path,
) -> None:
    """Write all of it.

    Args:
        plots: the folder to write into; `roofseg.report.leaderboard.leaderboard` names the files.
        entries: in the order of params.yaml.
        table: that of `roofseg.report.leaderboard.score_table`.
        costs: that of `roofseg.report.cost_table.cost_table`.
        floor: the scores of `roofseg.baselines`.
        dataset: its name.
        predictions: folder with NAME/SPLIT/panels/TILE.png of each attempt.
    """
    with atomic_write(plots / "comparisons") as folder:
        folder.mkdir()
        for split in SPLITS:
            grid = _grid(entries, split, dataset, predictions)
            if grid is not None:
                write_png(folder / f"{split}.png", grid)

    labels = [entry.label for entry in entries]
    colours = {label: colour(index) for index, label in enumerate(labels)}
    _write_picture(
        plots / "leaderboard.png",
        with_intervals(table, colours, floor_iou(floor), tile_counts(entries)),
    )
    write_csv(plots / "leaderboard.csv", _points(table, labels))
    _write_picture(plots / "costs.png", against_cost(costs, colours))

    epochs = gathered(entries, "epochs")[["attempt", "epoch", "val_iou"]]
    _write_picture(plots / "convergence.png", convergence(epochs))
    write_csv(plots / "convergence.csv", epochs.dropna())
    for name, (part, columns) in OF_VAL.items():
        rows = gathered(entries, part)
        rows = rows[rows.split == "val"]
        write_csv(plots / f"{name}.csv", rows[["attempt", *columns]].dropna())


def gathered(entries: Sequence[Entry], part: str) -> pd.DataFrame:
    """A table of every attempt (a field of `Entry`), one below the other, with a column attempt."""
    return pd.concat([getattr(entry, part).assign(attempt=entry.label) for entry in entries])


def _points(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """IoU of each attempt in each split that it was scored on, in the order of ``labels``."""
    rows = table.set_index("label").loc[list(labels)]
    parts = [
        pd.DataFrame(
            {
                "attempt": rows.index,
                "split": split,
                "iou": rows[f"{split}_iou"].to_numpy(),
                "low": rows[f"{split}_iou_low"].to_numpy(),
                "high": rows[f"{split}_iou_high"].to_numpy(),
                "standing": rows[f"{split}_standing"].to_numpy(),
            }
        )
        for split in SPLITS
    ]
    return pd.concat(parts).dropna(subset="iou")


def _write_picture(path: Path, picture: Image) -> None:
    with atomic_write(path) as scratch:
        write_png(scratch, picture)


def _grid(entries: Sequence[Entry], split: str, dataset: str, predictions: Path) -> Image | None:
    """The grid of a split, with the attempts that were scored on it; None if there is none."""
    shown = [entry for entry in entries if split in entry.scores]
    if not shown:
        return None
    ious = pd.DataFrame(
        {
            entry.attempt: entry.tiles[entry.tiles.split == split].set_index("tile").iou
            for entry in shown
        }
    )
    title = f"{dataset}, {split}: all {len(ious)} tiles" if len(ious) > 1 else f"{dataset}, {split}"
    if len(chosen := shown_tiles(ious)) < len(ious):
        title = (
            f"{dataset}, {split}: {MAX_ROWS} of {len(ious)} tiles, at even steps from the worst "
            "mean IoU to the best"
        )
        ious = ious.loc[chosen]
    if sealed := [entry.label for entry in entries if entry not in shown]:
        title += f"\nsealed, not shown: {', '.join(sealed)}"

    columns: list[Column] = []
    for entry in shown:
        panels = [
            _panel(predictions / entry.attempt / split / "panels" / f"{tile}.png", entry.attempt)
            for tile in ious.index
        ]
        if not columns:
            columns += [Column("image", [each[0] for each in panels])]
            columns += [Column("truth", [each[1] for each in panels])]
        name = entry.label.replace(" (", "\n(")
        heading = f"{name}\nIoU {entry.scores[split]['iou']:.3f}"
        captions = [f"IoU {iou:.3f}" for iou in ious[entry.attempt]]
        columns.append(Column(heading, [each[2] for each in panels], captions))
    return comparison_grid(list(ious.index), columns, title)


def shown_tiles(ious: pd.DataFrame) -> list[str]:
    """The tiles that a comparison shows: all, or `MAX_ROWS` at even steps of their mean IoU.

    Args:
        ious: a row per tile, a column per attempt.
    """
    if len(ious) <= MAX_ROWS:
        return list(ious.index)
    steps = np.linspace(0, len(ious) - 1, MAX_ROWS).round().astype(int)
    chosen = ious.mean(axis=1).sort_values(kind="stable").index[steps]
    return list(ious.index[ious.index.isin(chosen)])


def _panel(path: Path, attempt: str) -> tuple[Image, Image, Image]:
    expect(path, f"evaluate@{attempt}")
    return thirds(read_image(path))
