"""The leaderboard: every attempt's recipe and scores in one table, and the pictures to compare.

It takes the attempts from their recipes, and all that it shows of test from what evaluation wrote;
it reads no patches, and starts without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.files import read_json, write_json, write_text
from roofseg.metrics import SPLITS
from roofseg.pages.tables import write_csv
from roofseg.recipe.params import Recipe
from roofseg.report.attempts import Entry, expect, read_entry
from roofseg.report.comparisons import compare_with_leader, ranked, score_columns, standings
from roofseg.report.cost_table import cost_table, cost_text
from roofseg.report.leaderboard_plots import write_plots
from roofseg.report.leaderboard_text import markdown, measures, tile_counts
from roofseg.results.disclaimers import SEALED


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
        metrics: folder for leaderboard.csv, leaderboard.json and leaderboard.md, comparisons.csv,
            costs.csv and costs.md.
        plots: folder for leaderboard, convergence and costs, each a picture (.png), and the text
            of the first two, of precision_recall, reliability and sizes (.csv); and for
            comparisons/ with val.png and, once an attempt's test is open, test.png.

    Returns:
        The text of leaderboard.md.
    """
    expect(baselines, "baselines")
    floor = read_json(baselines)
    entries = [
        read_entry(name, recipe, results / name, dataset) for name, recipe in recipes.items()
    ]
    order = ranked(entries)
    comparisons = compare_with_leader(order)
    table = score_table(order, comparisons)
    costs = cost_table(order, table)

    write_plots(plots, entries, table, costs, floor, dataset, predictions)
    text = markdown(table, order, comparisons, floor, dataset, patch_size)
    write_csv(metrics / "comparisons.csv", comparisons)
    write_csv(metrics / "costs.csv", costs)
    write_text(metrics / "costs.md", cost_text(costs, order))
    write_csv(metrics / "leaderboard.csv", _sealed(table))
    write_json(metrics / "leaderboard.json", _plain(table, entries, floor, dataset, patch_size))
    write_text(metrics / "leaderboard.md", text)
    return text


def score_table(order: Sequence[Entry], comparisons: pd.DataFrame) -> pd.DataFrame:
    """The table: one row per attempt.

    Scores (`comparisons.score_columns`) are NaN where a split is sealed; those of whole tiles are
    missing unless all attempts were scored on them. `comparisons.standings` says how the attempt
    stands to the leader.

    Args:
        order: the attempts, the leader first (`comparisons.ranked`).
        comparisons: those of `comparisons.compare_with_leader`.
    """
    whole = ["val_full_tiles", "test_full_tiles"]
    if not all(whole[0] in entry.scores for entry in order):
        whole = []
    standing = {split: standings(order, comparisons, split) for split in SPLITS}
    rows = []
    for place, entry in enumerate(order):
        row: dict[str, Any] = {
            "rank": place + 1,
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
        }
        for split in SPLITS:
            row |= score_columns(entry, split, "iou") | score_columns(entry, split, "f1")
            row[f"{split}_standing"] = standing[split][place]
        for split in whole:
            row |= score_columns(entry, split, "iou")
        row["looks"] = entry.looks
        row["minutes"] = entry.times["minutes"]
        row["trainable_parameters"] = entry.training["trainable_parameters"]
        rows.append(row)
    return pd.DataFrame(rows)


def _loss(bce_weight: float) -> str:
    if bce_weight in (0, 1):
        return "BCE" if bce_weight else "Dice"
    return f"{bce_weight:g} BCE + {1 - bce_weight:g} Dice"


def _sealed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `SEALED` for the scores of a sealed test."""
    shown = table.copy()
    sealed = table.test_standing == SEALED
    for name in [name for name in table if name.startswith("test_")]:
        if shown[name].dtype == float:
            # As to_csv has them, which formats no column that holds text.
            shown[name] = ["" if pd.isna(cell) else f"{cell:.6g}" for cell in table[name]]
        shown.loc[sealed, name] = SEALED
    return shown


def _plain(
    table: pd.DataFrame,
    entries: Sequence[Entry],
    floor: Mapping[str, Any],
    dataset: str,
    patch_size: int,
) -> dict[str, Any]:
    """The table as JSON values: null where test is sealed, and all scores beside the headline's.

    ``measures`` has `leaderboard_text.measures` by split; the ends of an interval are null where
    there is none.
    """
    more = {
        entry.attempt: {
            "scores": entry.scores,
            "measures": {
                split: {
                    name: {key: None if pd.isna(end) else end for key, end in asdict(found).items()}
                    for name, found in measures(entry, split).items()
                }
                for split in SPLITS
                if split in entry.scores
            },
        }
        for entry in entries
    }
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return {
        "dataset": dataset,
        "patch_size": patch_size,
        "tiles": tile_counts(entries),
        "floor": floor,
        "attempts": [{**row, **more[row["attempt"]]} for row in rows],
    }
