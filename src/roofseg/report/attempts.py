"""An attempt as the leaderboard enters it: what training and evaluation left of it, in text files.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.core.files import read_json
from roofseg.recipe.params import Recipe
from roofseg.results.test_ledger import count_looks

VAL_IOU = "live/plots/metrics/val/iou.tsv"
MADE_BY = {
    "training.json": "train",
    "times.json": "train",
    VAL_IOU: "train",
    "scores.json": "evaluate",
    "tiles.csv": "evaluate",
    "pr.csv": "evaluate",
    "reliability.csv": "evaluate",
    "sizes.csv": "evaluate",
    "costs.json": "evaluate",
    "inference_times.json": "evaluate",
    "test_looks.csv": "evaluate",
}
"""The files that are read, below metrics/attempts/NAME, and the stage that writes each."""


@dataclass(frozen=True)
class Entry:
    """One attempt: its recipe, and what training and evaluation left of it.

    ``scores`` holds the scores by split, without ``test`` while that is sealed; ``tiles``,
    ``curve`` (precision and recall), ``reliability`` and ``sizes`` have a column ``split``;
    ``epochs`` has columns epoch (from 1) and val_iou. ``times`` is `engine.Trained.times`,
    ``costs`` and ``inference`` are of `evaluation.costs`. ``looks`` counts the recipes of this
    attempt that were scored on test.
    """

    attempt: str
    recipe: Recipe
    training: Mapping[str, Any]
    times: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float | None]]
    tiles: pd.DataFrame
    curve: pd.DataFrame
    reliability: pd.DataFrame
    sizes: pd.DataFrame
    epochs: pd.DataFrame
    costs: Mapping[str, int]
    inference: Mapping[str, Any]
    looks: int

    @property
    def label(self) -> str:
        return self.recipe.label(self.attempt)

    def counts(self, split: str) -> pd.DataFrame:
        """tp, fp and fn of each tile of a split, by its name; empty while that is sealed."""
        rows = self.tiles[self.tiles.split == split]
        return rows.set_index("tile")[["tp", "fp", "fn"]]


def read_entry(attempt: str, recipe: Recipe, folder: Path, dataset: str) -> Entry:
    """Read an attempt's results from ``folder`` (metrics/attempts/NAME).

    Raises UserError for a missing file, naming it and the command that makes it.
    """
    for name, stage in MADE_BY.items():
        expect(folder / name, f"{stage}@{attempt}")
    steps = pd.read_csv(folder / VAL_IOU, sep="\t")
    sizes = pd.read_csv(folder / "sizes.csv")
    return Entry(
        attempt=attempt,
        recipe=recipe,
        training=read_json(folder / "training.json")["result"],
        times=read_json(folder / "times.json"),
        scores=read_json(folder / "scores.json"),
        # Tiles may be called 007 or NA; only an empty cell is a missing value.
        tiles=pd.read_csv(
            folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False, na_values=[""]
        ),
        curve=pd.read_csv(folder / "pr.csv"),
        reliability=pd.read_csv(folder / "reliability.csv"),
        sizes=sizes.assign(
            size=sizes["size"] + " " + sizes.unit, share_found=sizes.found / sizes.buildings
        ),
        epochs=pd.DataFrame({"epoch": steps["step"], "val_iou": steps.iloc[:, -1].astype(float)}),
        costs=read_json(folder / "costs.json"),
        inference=read_json(folder / "inference_times.json"),
        looks=count_looks(folder / "test_looks.csv", dataset),
    )


def expect(path: Path, stage: str) -> None:
    """UserError, naming the stage that makes it, unless ``path`` is there."""
    if not path.exists():
        raise UserError(f"{path}: no such file. Run `dvc repro {stage}` to make it.")
