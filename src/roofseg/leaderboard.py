"""The leaderboard: every attempt's recipe and scores in one table, and the pictures to compare.

It takes the attempts from their recipes, and all that it shows of test from what evaluation wrote;
it reads no patches, and starts without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roofseg.caveats import SEALED, SYNTHETIC, SYNTHETIC_DATASETS, WITHOUT_SAM
from roofseg.errors import UserError
from roofseg.figures import Column, comparison_grid, convergence, thirds
from roofseg.files import Image, read_image, read_json, replaced, write_json, write_png, write_text
from roofseg.looks import count_looks
from roofseg.recipe import Recipe

# A comparison grid of more tiles than this is no longer looked at.
MAX_ROWS = 12

# Columns of leaderboard.csv, and what leaderboard.md calls them.
COLUMNS = {
    "rank": "#",
    "attempt": "model",
    "label": "",  # the name as plots show it; in the table, the prior says the rest
    "architecture": "",  # the name says it to a reader
    "encoder": "encoder",
    "prior": "prior",
    "lr": "lr",
    "augmentation": "augmentation",
    "dropout": "dropout",
    "loss": "loss",
    "best_epoch": "best epoch",
    "val_iou": "val IoU",
    "val_f1": "val F1",
    "test_iou": "test IoU",
    "test_f1": "test F1",
    "val_full_tiles_iou": "val IoU, whole tiles",  # these two only where all attempts have them
    "test_full_tiles_iou": "test IoU, whole tiles",
    "looks": "looks",
    "minutes": "minutes",
    "trainable_parameters": "trainable parameters",
}
TEXT_COLUMNS = {"model", "encoder", "prior", "augmentation", "loss"}


@dataclass(frozen=True)
class Entry:
    """One attempt: its recipe, and what training and evaluation left of it.

    ``scores`` holds `metrics.summarise` by split, without ``test`` while that is sealed; ``tiles``
    and ``curve`` (precision and recall) have a column ``split``; ``epochs`` has columns epoch
    (from 1) and val_iou. ``looks`` counts the recipes of this attempt that were scored on test.
    """

    attempt: str
    recipe: Recipe
    training: Mapping[str, Any]
    minutes: float
    scores: Mapping[str, Mapping[str, float]]
    tiles: pd.DataFrame
    curve: pd.DataFrame
    epochs: pd.DataFrame
    looks: int

    @property
    def label(self) -> str:
        return self.recipe.label(self.attempt)


def read_entry(attempt: str, recipe: Recipe, folder: Path, dataset: str) -> Entry:
    """Read an attempt's results from ``folder`` (metrics/attempts/NAME).

    Raises UserError for a missing file, naming it and the command that makes it.
    """
    made_by = {
        "training.json": "train",
        "times.json": "train",
        "live/plots/metrics/val/iou.tsv": "train",
        "scores.json": "evaluate",
        "tiles.csv": "evaluate",
        "pr.csv": "evaluate",
        "test_looks.csv": "evaluate",
    }
    for name, stage in made_by.items():
        _expect(folder / name, f"{stage}@{attempt}")
    steps = pd.read_csv(folder / "live/plots/metrics/val/iou.tsv", sep="\t")
    return Entry(
        attempt=attempt,
        recipe=recipe,
        training=read_json(folder / "training.json")["result"],
        minutes=read_json(folder / "times.json")["minutes"],
        scores=read_json(folder / "scores.json"),
        # Tiles may be called 007 or NA.
        tiles=pd.read_csv(folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False),
        curve=pd.read_csv(folder / "pr.csv"),
        epochs=pd.DataFrame({"epoch": steps["step"], "val_iou": steps.iloc[:, -1].astype(float)}),
        looks=count_looks(folder / "test_looks.csv", dataset),
    )


def _expect(path: Path, stage: str) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file. Run `dvc repro {stage}` to make it.")


def rank(entries: Sequence[Entry]) -> pd.DataFrame:
    """The table: one row per attempt, the best val IoU (mean over tiles) first.

    Columns are the keys of `COLUMNS`; those of test are NaN where test is sealed, those of whole
    tiles are missing unless all attempts were scored on them. Equals stay in the given order.
    """
    rows = [
        {
            "attempt": entry.attempt,
            "label": entry.label,
            "architecture": entry.recipe.architecture,
            "encoder": entry.recipe.encoder,
            "prior": entry.recipe.prior,
            "lr": entry.recipe.lr,
            "augmentation": entry.recipe.augmentation,
            "dropout": entry.recipe.dropout,
            "loss": _loss(entry.recipe.bce_weight),
            "best_epoch": entry.training["best_epoch"],
            "val_iou": entry.scores["val"]["iou"],
            "val_f1": entry.scores["val"]["f1"],
            "test_iou": entry.scores.get("test", {}).get("iou", float("nan")),
            "test_f1": entry.scores.get("test", {}).get("f1", float("nan")),
            **{
                f"{split}_full_tiles_iou": entry.scores.get(f"{split}_full_tiles", {}).get(
                    "iou", float("nan")
                )
                for split in ("val", "test")
                if _whole(entries)
            },
            "looks": entry.looks,
            "minutes": entry.minutes,
            "trainable_parameters": entry.training["trainable_parameters"],
        }
        for entry in entries
    ]
    table = pd.DataFrame(rows).sort_values("val_iou", ascending=False, kind="stable")
    table.insert(0, "rank", range(1, len(table) + 1))
    return table[[name for name in COLUMNS if name in table]]


def _whole(entries: Sequence[Entry]) -> bool:
    """Whether all attempts were scored on whole tiles of val."""
    return all("val_full_tiles" in entry.scores for entry in entries)


def _loss(bce_weight: float) -> str:
    if bce_weight in (0, 1):
        return "BCE" if bce_weight else "Dice"
    return f"{bce_weight:g} BCE + {1 - bce_weight:g} Dice"


def leaderboard(
    recipes: Mapping[str, Recipe],
    *,
    dataset: str,
    patch_size: int,
    results: Path,
    predictions: Path,
    baselines: Path,
    metrics: Path,
    plots: Path,
) -> str:
    """Write the leaderboard, its curves and its pictures.

    Args:
        recipes: the resolved recipe of each attempt, in the order that plots show them.
        dataset: its name.
        patch_size: side of a patch in pixels.
        results: folder with NAME/ of each attempt, as training and evaluation wrote it.
        predictions: folder with NAME/SPLIT/panels/TILE.png of each attempt.
        baselines: the JSON file of `roofseg.baselines`.
        metrics: folder for leaderboard.csv, leaderboard.json and leaderboard.md.
        plots: folder for convergence.csv, convergence.png, precision_recall.csv, and comparisons/
            with val.png and, once an attempt's test is open, test.png.

    Returns:
        The text of leaderboard.md.
    """
    _expect(baselines, "baselines")
    floor = read_json(baselines)
    entries = [
        read_entry(name, recipe, results / name, dataset) for name, recipe in recipes.items()
    ]
    table = rank(entries)

    with replaced(plots / "comparisons") as folder:
        folder.mkdir()
        for split in ("val", "test"):
            grid = _comparison(entries, split, dataset, predictions)
            if grid is not None:
                write_png(folder / f"{split}.png", grid)
    curves = pd.concat([entry.epochs.assign(attempt=entry.label) for entry in entries])
    curves = curves[["attempt", "epoch", "val_iou"]]
    with replaced(plots / "convergence.png") as path:
        write_png(path, convergence(curves))
    _write_csv(plots / "convergence.csv", curves.dropna())
    points = pd.concat([entry.curve.assign(attempt=entry.label) for entry in entries])
    points = points[points.split == "val"]
    _write_csv(
        plots / "precision_recall.csv", points[["attempt", "threshold", "precision", "recall"]]
    )

    text = _markdown(table, entries, floor, dataset, patch_size)
    _write_csv(metrics / "leaderboard.csv", table, na_rep=SEALED)
    write_json(metrics / "leaderboard.json", _plain(table, entries, floor, dataset, patch_size))
    write_text(metrics / "leaderboard.md", text)
    return text


def _write_csv(path: Path, table: pd.DataFrame, na_rep: str = "") -> None:
    text = table.to_csv(index=False, float_format="%.6g", na_rep=na_rep, lineterminator="\n")
    write_text(path, text)


def _comparison(
    entries: Sequence[Entry], split: str, dataset: str, predictions: Path
) -> Image | None:
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
    if len(ious) > MAX_ROWS:
        steps = np.linspace(0, len(ious) - 1, MAX_ROWS).round().astype(int)
        chosen = ious.mean(axis=1).sort_values(kind="stable").index[steps]
        title = (
            f"{dataset}, {split}: {MAX_ROWS} of {len(ious)} tiles, at even steps from the worst "
            "mean IoU to the best"
        )
        ious = ious[ious.index.isin(chosen)]
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


def _panel(path: Path, attempt: str) -> tuple[Image, Image, Image]:
    _expect(path, f"evaluate@{attempt}")
    return thirds(read_image(path))


def _tiles(entries: Sequence[Entry], split: str) -> int | None:
    """Number of tiles in a split; None while no attempt has opened it."""
    return max((int((entry.tiles.split == split).sum()) for entry in entries), default=0) or None


def _plain(
    table: pd.DataFrame,
    entries: Sequence[Entry],
    floor: Mapping[str, Any],
    dataset: str,
    patch_size: int,
) -> dict[str, Any]:
    """The table as JSON values: null where test is sealed, all scores beside the headline's."""
    scores = {entry.attempt: entry.scores for entry in entries}
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return {
        "dataset": dataset,
        "patch_size": patch_size,
        "tiles": {split: _tiles(entries, split) for split in ("val", "test")},
        "floor": floor,
        "attempts": [{**row, "scores": scores[row["attempt"]]} for row in rows],
    }


def _markdown(
    table: pd.DataFrame,
    entries: Sequence[Entry],
    floor: Mapping[str, Any],
    dataset: str,
    patch_size: int,
) -> str:
    hidden = [key for key, name in COLUMNS.items() if not name]
    shown = table.astype(object).where(table.notna(), SEALED).drop(columns=hidden)
    for name in [name for name in shown if name.endswith(("_iou", "_f1"))]:
        shown[name] = [cell if cell == SEALED else f"{cell:.3f}" for cell in shown[name]]
    shown["minutes"] = [f"{minutes:.1f}" for minutes in table.minutes]
    shown["looks"] = [f"**{looks}**" if looks > 1 else str(looks) for looks in table.looks]
    shown["lr"] = [f"{lr:g}" for lr in table.lr]
    shown["trainable_parameters"] = [f"{count / 1e6:.2f} M" for count in table.trainable_parameters]
    without_sam = [entry.attempt for entry in entries if entry.recipe.without_sam]
    shown.loc[shown.attempt.isin(without_sam), "prior"] = "scratch (no SAM weights)"
    shown = shown.rename(columns=COLUMNS)

    notes = [
        "Ordered by validation IoU; test stands beside it. IoU and F1 are means over tiles, at "
        "threshold 0.5.",
        "",
        *_grid(shown),
        "",
        f"- **Floor** on val: {_floor(floor)}. {_above(entries, floor)}",
        f"- **Tiles**: dataset `{dataset}`, {_tiles(entries, 'val')} in val and "
        f"{_tiles(entries, 'test') or 'none opened'} in test, one patch of {patch_size} x "
        f"{patch_size} px each.",
    ]
    if _whole(entries):
        notes.append(
            "- **Whole tiles**: columns that say so score every pixel of the tiles, by blended "
            "windows as `roofseg predict` does; all others, and the order, are of the patches."
        )
    if any("test" not in entry.scores for entry in entries):
        notes.append(
            f"- **{SEALED}**: the recipe is not final, so its test split was not opened. "
            "`python -m stages.finalize NAME`, commit params.yaml, `dvc repro`."
        )
    if several := [entry.attempt for entry in entries if entry.looks > 1]:
        notes.append(
            f"- **Looks**: more than one recipe of {', '.join(several)} was scored on these test "
            "tiles, so its test figures are no longer those of tiles that nobody had looked at. "
            "metrics/attempts/NAME/test_looks.csv lists them."
        )
    if without_sam:
        notes.append(f"- **No SAM weights**: the encoder of {', '.join(without_sam)} {WITHOUT_SAM}")
    if dataset in SYNTHETIC_DATASETS:
        notes.append(f"- **Synthetic**: {SYNTHETIC}")
    return "\n".join(["# Leaderboard", "", *notes]) + "\n"


def _grid(shown: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table, padded so that it reads well as plain text too."""
    cells = [list(shown.columns), *shown.astype(str).to_numpy().tolist()]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    left = [name in TEXT_COLUMNS for name in shown.columns]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(row, widths, left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if is_left else "-" * (width - 1) + ":"
        for width, is_left in zip(widths, left, strict=True)
    ]
    return [line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])]


def _floor(floor: Mapping[str, Any]) -> str:
    constant, colour = floor["constant"], floor["colour_threshold"]
    sign = {"above": ">=", "below": "<"}[colour["direction"]]
    return (
        f"{constant['mask']}, IoU {constant['val']['iou']:.3f}, F1 {constant['val']['f1']:.3f}; "
        f"colour threshold ({colour['channel'].replace('_', ' ')} {sign} {colour['threshold']}, "
        f"fitted on train), IoU {colour['val']['iou']:.3f}, F1 {colour['val']['f1']:.3f}"
    )


def _above(entries: Sequence[Entry], floor: Mapping[str, Any]) -> str:
    limit = max(baseline["val"]["iou"] for baseline in floor.values())
    below = [entry.attempt for entry in entries if entry.scores["val"]["iou"] <= limit]
    return f"Not above it: {', '.join(below)}." if below else "Every attempt is above it."
