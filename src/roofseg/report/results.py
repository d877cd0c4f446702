"""What the leaderboard and the stages before it wrote, read for the report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.metrics import SPLITS
from roofseg.recipe.params import Recipe
from roofseg.report.comparisons import floor_iou
from roofseg.results.intervals import Interval
from roofseg.results.test_ledger import Look, read_looks

# Of requirements.lock, the packages that decide a result.
PINNED = (
    "torch", "torchvision", "lightning", "segmentation-models-pytorch", "timm", "segment-anything",
    "albumentations", "opencv-python-headless", "rasterio", "numpy", "pandas", "matplotlib", "dvc",
)  # fmt: skip

NAMES = ("attempt", "leader", "split", "tile")
METRICS = ("comparisons.csv", "costs.csv")
PLOTS = ("convergence.csv", "precision_recall.csv", "reliability.csv")


@dataclass(frozen=True)
class Attempt:
    """One attempt. ``row`` is that of leaderboard.json, ``index`` its place in params.yaml."""

    name: str
    index: int
    row: Mapping[str, Any]
    record: Mapping[str, Any]  # training.json
    recipe: Recipe
    tiles: pd.DataFrame
    sizes: pd.DataFrame
    looks: Sequence[tuple[str, Look]]

    @property
    def label(self) -> str:
        return str(self.row["label"])

    def score(self, key: str) -> Interval:
        """A score with its interval, such as ``val_iou``; NaN where it is not known."""
        return _interval(self.row.get(f"{key}{end}") for end in ("", "_low", "_high"))

    def measure(self, split: str, key: str) -> Interval:
        """Likewise one of `leaderboard_text.MEASURES`, on a split that it was scored on."""
        found = self.row["measures"][split].get(key, {})
        return _interval(found.get(part) for part in ("value", "low", "high"))

    def standing(self, split: str) -> str:
        """``leader``, ``tie``, ``behind``, ``ahead`` or ``sealed`` (`comparisons.standings`)."""
        return str(self.row.get(f"{split}_standing", ""))

    def opened(self, split: str) -> bool:
        """Whether it was scored on a split."""
        return split in self.row["scores"]


def _interval(values: Iterable[float | None]) -> Interval:
    return Interval(*(float("nan") if value is None else float(value) for value in values))


@dataclass(frozen=True)
class Results:
    """All attempts, the best first, and the tables of all of them by file name."""

    dataset: str
    patch_size: int
    tile_counts: Mapping[str, int | None]
    floor: Mapping[str, Any]
    attempts: Sequence[Attempt]
    tables: Mapping[str, pd.DataFrame]
    predictions: Path
    pins: Mapping[str, str]
    lock_sha256: str

    @property
    def leader(self) -> Attempt:
        return self.attempts[0]

    @property
    def in_order(self) -> list[Attempt]:
        """The attempts as params.yaml has them."""
        return sorted(self.attempts, key=lambda attempt: attempt.index)

    @property
    def splits(self) -> list[str]:
        """Those that at least one attempt was scored on."""
        return [name for name in SPLITS if any(each.opened(name) for each in self.attempts)]

    @property
    def floor_iou(self) -> float:
        """The best val IoU of what needs no training."""
        return floor_iou(self.floor)

    def table(self, name: str) -> pd.DataFrame:
        """A table of the leaderboard; empty where it wrote none."""
        return self.tables.get(name, pd.DataFrame())

    def compared(self, split: str) -> pd.DataFrame:
        """Each attempt's comparison with the leader on a split, by the attempt's name."""
        table = self.table("comparisons.csv")
        if table.empty:
            return table
        here = table[(table.split == split) & (table.attempt != self.leader.name)]
        return here.set_index("attempt")

    def curves(self, name: str) -> dict[int, pd.DataFrame]:
        """A table of curves, by the index of the attempt."""
        table = self.table(name)
        if table.empty:
            return {}
        parts = {
            attempt.index: table[table.attempt.isin([attempt.label, attempt.name])]
            for attempt in self.in_order
        }
        return {index: part for index, part in parts.items() if not part.empty}


def read_results(
    attempts: Sequence[str], *, metrics: Path, plots: Path, predictions: Path, lock: Path
) -> Results:
    """Read what `roofseg.report.report.report` tells of; its arguments are described there."""
    board = read_json(metrics / "leaderboard.json")
    files = [*(metrics / name for name in METRICS), *(plots / name for name in PLOTS)]
    return Results(
        dataset=board["dataset"],
        patch_size=board["patch_size"],
        tile_counts=board["tiles"],
        floor=board["floor"],
        attempts=[
            _attempt(row, attempts.index(row["attempt"]), metrics / "attempts" / row["attempt"])
            for row in board["attempts"]
        ],
        tables={path.name: _read_csv(path) for path in files if path.exists()},
        predictions=predictions,
        pins=_pins(lock),
        lock_sha256=sha256_file(lock),
    )


def _attempt(row: Mapping[str, Any], index: int, folder: Path) -> Attempt:
    record = read_json(folder / "training.json")
    return Attempt(
        name=row["attempt"],
        index=index,
        row=row,
        record=record,
        recipe=Recipe.model_validate(record["recipe"]),
        tiles=_read_csv(folder / "tiles.csv"),
        sizes=_read_csv(folder / "sizes.csv"),
        looks=read_looks(folder / "test_looks.csv"),
    )


def _read_csv(path: Path) -> pd.DataFrame:
    """A table; its names are text, 007 and NA too, and an empty cell has no number."""
    kinds = dict.fromkeys(NAMES, str)
    try:
        return pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from None


def _pins(lock: Path) -> dict[str, str]:
    """The versions of `PINNED` in a lock file."""
    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{lock}: no such file. `git checkout {lock}` brings it back.") from None
    found = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, flags=re.MULTILINE))
    return {name: found[name] for name in PINNED if name in found}
