"""Read the results of one attempt, which training and evaluation wrote to metrics/attempts/NAME."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.core.files import read_json
from roofseg.recipe.params import Recipe
from roofseg.results.intervals import UNKNOWN, Interval, intervals_of_tiles
from roofseg.results.ledger import Look, count_looks, read_looks

VAL_IOU = "live/plots/metrics/val/iou.tsv"
WRITTEN_BY = {
    "train": ("training.json", "times.json", VAL_IOU),
    "evaluate": (
        "scores.json", "tiles.csv", "pr.csv", "reliability.csv", "sizes.csv", "costs.json",
        "inference_times.json", "test_looks.csv",
    ),
}  # fmt: skip
"""The files to read, below metrics/attempts/NAME, by the stage that writes them."""


@dataclass(frozen=True)
class Attempt:
    """The results of one attempt.

    Attributes:
        name: its name in params.yaml.
        index: its position in params.yaml, from 0, which decides its colour in every chart.
        record: training.json, with the digest of the recipe, the hash of the training inputs, and
            the outcome under ``result``.
        times: minutes, seconds_per_epoch and peak_memory_gb of training.
        scores: scores by split, then by name; there is no ``test`` while that split is sealed.
        tiles: the counts and scores of each tile, with a column ``split``.
        curve: precision and recall on val, by threshold.
        reliability: predicted probability and share of building on val, by bin.
        sizes: buildings of val that are present and found, by size class; share_found is NaN for
            a class without buildings.
        epochs: columns epoch (from 1) and val_iou.
        costs: parameters, multiply-adds and bytes (`roofseg.evaluation.costs.measure`).
        inference: speed and device (`roofseg.evaluation.costs.time_inference`).
        looks: lines of the ledger for this dataset's test split, each with its kind.
        look_count: the number of recipes that were scored on that test split.
    """

    name: str
    index: int
    record: Mapping[str, Any]
    times: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float | None]]
    tiles: pd.DataFrame
    curve: pd.DataFrame
    reliability: pd.DataFrame
    sizes: pd.DataFrame
    epochs: pd.DataFrame
    costs: Mapping[str, int]
    inference: Mapping[str, Any]
    looks: Sequence[tuple[str, Look]]
    look_count: int

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the attempt was trained with."""
        return Recipe.model_validate(self.record["recipe"])

    @property
    def training(self) -> Mapping[str, Any]:
        """The outcome of training: best_epoch, epochs_run, device, precision, ..."""
        result: Mapping[str, Any] = self.record["result"]
        return result

    @property
    def label(self) -> str:
        """The name, with a note where a SAM encoder lacks SAM's weights."""
        return self.recipe.label(self.name)

    def opened(self, split: str) -> bool:
        """Whether the attempt was scored on a split."""
        return split in self.scores

    def of_split(self, split: str) -> pd.DataFrame:
        """Rows of ``tiles`` in one split, indexed by tile; empty while the split is sealed."""
        return self.tiles[self.tiles.split == split].set_index("tile")

    def counts(self, split: str) -> pd.DataFrame:
        """tp, fp and fn (pixels) of each tile of a split, by tile name."""
        return self.of_split(split)[["tp", "fp", "fn"]]

    def score(self, split: str, name: str) -> Interval:
        """A score with its 95 % interval over the tiles; unknown numbers are NaN.

        The value is that of scores.json. The calibration error (``ece``) has no interval, since it
        is computed from all pixels, not from tiles.
        """
        value = self.scores.get(split, {}).get(name)
        if value is None:
            return UNKNOWN
        ends = self._intervals[split].get(name, UNKNOWN)
        return Interval(value, ends.low, ends.high)

    @cached_property
    def _intervals(self) -> dict[str, dict[str, Interval]]:
        return {split: intervals_of_tiles(self.of_split(split)) for split in self.scores}


def read_attempt(name: str, index: int, folder: Path, dataset: str) -> Attempt:
    """Read the results of an attempt from ``folder`` (metrics/attempts/NAME).

    Raises:
        UserError: a file is missing; the message names it and the command that makes it.
    """
    for stage, files in WRITTEN_BY.items():
        for file in files:
            require(folder / file, f"{stage}@{name}")
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("pr", "reliability", "sizes")]
    curve, reliability, sizes = (table[table.split == "val"] for table in tables)
    steps = pd.read_csv(folder / VAL_IOU, sep="\t")
    return Attempt(
        name=name,
        index=index,
        record=read_json(folder / "training.json"),
        times=read_json(folder / "times.json"),
        scores=read_json(folder / "scores.json"),
        # A tile may be called 007 or NA: names are text, and only an empty cell is a missing value.
        tiles=pd.read_csv(
            folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False, na_values=[""]
        ),
        curve=curve,
        reliability=reliability,
        sizes=sizes.assign(share_found=sizes.found / sizes.buildings),
        epochs=pd.DataFrame({"epoch": steps["step"], "val_iou": steps.iloc[:, -1].astype(float)}),
        costs=read_json(folder / "costs.json"),
        inference=read_json(folder / "inference_times.json"),
        looks=[
            (kind, look)
            for kind, look in read_looks(folder / "test_looks.csv")
            if look.dataset == dataset
        ],
        look_count=count_looks(folder / "test_looks.csv", dataset),
    )


def require(path: Path, stage: str) -> None:
    """Raise UserError unless ``path`` exists; the message names the stage that makes it."""
    if not path.exists():
        raise UserError(f"{path}: no such file. Run `dvc repro {stage}` to make it.")
