"""The leaderboard: all attempts ranked and compared, and its files for programs.

`roofseg.report.page` describes the pages for readers. This package reads no patches and imports no
torch: all that it shows of test comes from the files that evaluation wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.files import read_json, write_json
from roofseg.metrics import COUNTS, SCORED_SPLITS
from roofseg.report.attempts import Attempt, read_attempt, require
from roofseg.report.comparisons import compare_attempts
from roofseg.results.disclaimers import SEALED
from roofseg.results.intervals import Interval
from roofseg.results.seed_spread import SeedSpread
from roofseg.results.tables import write_csv
from roofseg.results.verdicts import LEADER

MEASURES = {
    "precision": "precision",
    "recall": "recall",
    "boundary_iou": "boundary IoU, 3 px",
    "boundary_iou_m": "boundary IoU, 1 m",
    "building_f1": "building F1",
    "ece": "ECE",
}
"""The scores other than IoU and F1, and their headings in tables."""


RECIPE_COLUMNS = ("architecture", "encoder", "prior", "lr", "augmentation", "dropout")
"""The keys of a recipe that `score_table` shows as they are."""


@dataclass(frozen=True)
class Leaderboard:
    """All attempts, ranked and compared with each other.

    The *leader* is the attempt with the best val IoU (mean over tiles). It is the leader on test
    too, since nothing is chosen on test.

    Attributes:
        dataset: the name of the dataset.
        patch_size: side of a patch in pixels.
        attempts: the attempts in the order of params.yaml, which decides their colours.
        baselines: the scores of `roofseg.baselines`.
        seed_spread: the spread over seeds by attempt (`roofseg.results.seed_spread`); only of those
            for which it was measured with their recipe in params.yaml.
    """

    dataset: str
    patch_size: int
    attempts: Sequence[Attempt]
    baselines: Mapping[str, Any]
    seed_spread: Mapping[str, SeedSpread]

    @cached_property
    def ranked(self) -> list[Attempt]:
        """The attempts by falling val IoU; those with equal IoU stay in the given order."""
        return sorted(self.attempts, key=lambda attempt: -(attempt.scores["val"]["iou"] or 0))

    @property
    def leader(self) -> Attempt:
        return self.ranked[0]

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Every two attempts; columns and errors are those of `compare_attempts`."""
        return compare_attempts(self.ranked)

    @property
    def floor(self) -> float:
        """The best val IoU of the baselines, which every attempt must beat."""
        return max(float(baseline["val"]["iou"]) for baseline in self.baselines.values())

    @property
    def splits(self) -> list[str]:
        """The splits that at least one attempt was scored on."""
        return [split for split in SCORED_SPLITS if self.tile_counts[split]]

    @property
    def whole_tile_splits(self) -> list[str]:
        """The names SPLIT_full_tiles of `splits`, if every attempt was scored on whole tiles."""
        if not all(attempt.opened("val_full_tiles") for attempt in self.attempts):
            return []
        return [f"{split}_full_tiles" for split in self.splits]

    @property
    def tile_counts(self) -> dict[str, int | None]:
        """The number of tiles of each split; None if no attempt was scored on it."""
        return {
            split: max(len(attempt.counts(split)) for attempt in self.attempts) or None
            for split in SCORED_SPLITS
        }

    def labelled(self, split: str) -> pd.Series:
        """The share of labelled pixels of each patch of a split, in [0, 1], by name of the tile."""
        opened = next(attempt for attempt in self.attempts if attempt.opened(split))
        pixels: pd.Series = opened.of_split(split)[COUNTS].sum(axis=1)
        return pixels / self.patch_size**2

    def status(self, attempt: Attempt, split: str) -> str:
        """The verdict of an attempt against the leader on a split (`roofseg.results.verdicts`).

        Returns:
            ``leader``, ``tie``, ``behind`` or ``ahead`` (possible on test only); ``sealed`` if the
            attempt was not scored on the split; empty if only the leader was not, or if the split
            has a single tile.
        """
        if not attempt.opened(split):
            return SEALED
        if attempt.name == self.leader.name:
            return LEADER
        row = self.comparison(attempt, self.leader, split)
        return "" if row is None else str(row.verdict)

    def comparison(self, attempt: Attempt, than: Attempt, split: str) -> Any | None:
        """The row of `comparisons` of two attempts on a split; None if they were not compared."""
        table = self.comparisons
        pair = (table.attempt == attempt.name) & (table.than == than.name)
        return next(table[pair & (table.split == split)].itertuples(), None)


def read_leaderboard(
    names: Sequence[str],
    *,
    dataset: str,
    patch_size: int,
    results: Path,
    baselines: Path,
    seed_spread: Mapping[str, SeedSpread],
) -> Leaderboard:
    """Read the results of all attempts.

    Args:
        names: the attempts in the order of params.yaml.
        dataset: the name of the dataset.
        patch_size: side of a patch in pixels.
        results: the folder with NAME/ of each attempt, as training and evaluation wrote it.
        baselines: the JSON file of `roofseg.baselines`.
        seed_spread: see `Leaderboard`.

    Raises:
        UserError: a file is missing; the message names it and the command that makes it.
    """
    require(baselines, "baselines")
    attempts = [
        read_attempt(name, index, results / name, dataset) for index, name in enumerate(names)
    ]
    return Leaderboard(dataset, patch_size, attempts, read_json(baselines), seed_spread)


def score_table(board: Leaderboard) -> pd.DataFrame:
    """Make the table of recipes and scores: one row per attempt, the leader first.

    The interval of a score SPLIT_NAME is in SPLIT_NAME_low and SPLIT_NAME_high. All three are NaN
    if the split is sealed, and the interval is NaN where it is unknown. SPLIT_vs_leader is the
    `Leaderboard.status` of the attempt.
    """
    rows = []
    for rank, attempt in enumerate(board.ranked, 1):
        row: dict[str, Any] = {"rank": rank, "attempt": attempt.name, "label": attempt.label}
        row |= {key: getattr(attempt.recipe, key) for key in RECIPE_COLUMNS}
        row["loss"] = loss_name(attempt.recipe.bce_weight)
        row["best_epoch"] = attempt.training["best_epoch"]
        for split in SCORED_SPLITS:
            for score in ("iou", "f1"):
                row |= _columns(f"{split}_{score}", attempt.score(split, score))
            row[f"{split}_vs_leader"] = board.status(attempt, split)
        for split in board.whole_tile_splits:
            row |= _columns(f"{split}_iou", attempt.score(split, "iou"))
        row["looks"] = attempt.look_count
        row["minutes"] = attempt.times["minutes"]
        row["trainable_parameters"] = attempt.training["trainable_parameters"]
        row["adapter_parameters"] = attempt.training.get("adapter_parameters", 0)
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(name: str, score: Interval) -> dict[str, float]:
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}


def loss_name(bce_weight: float) -> str:
    """Name the loss, such as ``0.5 BCE + 0.5 Dice``."""
    if bce_weight in (0, 1):
        return "BCE" if bce_weight else "Dice"
    return f"{bce_weight:g} BCE + {1 - bce_weight:g} Dice"


COUNTED_COSTS = (
    "total_parameters", "trainable_parameters", "multiply_adds_per_patch",
    "multiply_adds_per_megapixel", "model_bytes",
)  # fmt: skip
"""The costs that follow from the architecture (`roofseg.evaluation.costs.measure`)."""


def cost_values(attempt: Attempt) -> dict[str, float | None]:
    """The costs of an attempt.

    Returns:
        The `COUNTED_COSTS`; seconds_per_epoch, epochs_run, minutes (of training, validation
        included), peak_memory_gb (of training); inference_megapixels_per_second; iou_per_hour, val
        IoU over hours of training (None if training took no measurable time).
    """
    minutes = attempt.times["minutes"]
    iou = attempt.score("val", "iou").value
    return {
        **{key: attempt.costs[key] for key in COUNTED_COSTS},
        "seconds_per_epoch": attempt.times["seconds_per_epoch"],
        "epochs_run": attempt.training["epochs_run"],
        "minutes": minutes,
        "peak_memory_gb": attempt.times["peak_memory_gb"],
        "inference_megapixels_per_second": attempt.inference["megapixels_per_second"],
        "iou_per_hour": 60 * iou / minutes if minutes > 0 else None,
    }


def write_machine_files(board: Leaderboard, *, metrics: Path, plots: Path) -> None:
    """Write the leaderboard for programs.

    Args:
        board: the leaderboard.
        metrics: the folder for leaderboard.csv (`score_table`) and leaderboard.json (the same table
            with all scores, costs and comparisons).
        plots: the folder for the CSV files that ``dvc plots`` draws: leaderboard, convergence,
            precision_recall, reliability and sizes. Their attempts are in the order of params.yaml.
    """
    write_csv(metrics / "leaderboard.csv", _with_sealed(score_table(board)))
    write_json(metrics / "leaderboard.json", _as_json(board))
    for name, table in plot_tables(board).items():
        write_csv(plots / f"{name}.csv", table)


def _with_sealed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `SEALED` in place of the scores of a sealed test split."""
    shown = table.copy()
    sealed = table.test_vs_leader == SEALED
    for name in [name for name in table if name.startswith("test_")]:
        if shown[name].dtype == float:
            # Text in the number format of write_csv, which leaves columns with text as they are.
            shown[name] = ["" if pd.isna(cell) else f"{cell:.6g}" for cell in table[name]]
        shown.loc[sealed, name] = SEALED
    return shown


def _as_json(board: Leaderboard) -> dict[str, Any]:
    """The leaderboard as JSON values; sealed scores, unknown intervals and spreads are null."""
    rows = _records(score_table(board))
    for row, attempt in zip(rows, board.ranked, strict=True):
        row["scores"] = attempt.scores
        row["measures"] = {
            split: {
                name: {key: None if pd.isna(end) else end for key, end in asdict(score).items()}
                for name in MEASURES
                if not pd.isna((score := attempt.score(split, name)).value)
            }
            for split in board.splits
            if attempt.opened(split)
        }
        row["costs"] = cost_values(attempt)
        spread = board.seed_spread.get(attempt.name)
        row["seed_spread"] = asdict(spread) if spread else None
    return {
        "dataset": board.dataset,
        "patch_size": board.patch_size,
        "tiles": board.tile_counts,
        "floor": board.baselines,
        "attempts": rows,
        "comparisons": _records(board.comparisons),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, with None for NaN."""
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return rows


def plot_tables(board: Leaderboard) -> dict[str, pd.DataFrame]:
    """The tables that ``dvc plots`` draws, by file name.

    The table ``leaderboard`` covers all opened splits, the others val only.
    """
    points = pd.DataFrame(
        [
            {
                "attempt": attempt.label,
                "split": split,
                "iou": score.value,
                "low": score.low,
                "high": score.high,
                "vs_leader": board.status(attempt, split),
            }
            for split in board.splits
            for attempt in board.attempts
            if attempt.opened(split)
            for score in [attempt.score(split, "iou")]
        ]
    )

    def joined(part: str, *columns: str) -> pd.DataFrame:
        """A table (field ``part`` of `Attempt`) of all attempts, without incomplete rows."""
        tables = [getattr(own, part).assign(attempt=own.label) for own in board.attempts]
        return pd.concat(tables)[["attempt", *columns]].dropna()

    sizes = joined("sizes", "size", "unit", "buildings", "share_found", "pixel_recall")
    sizes["size"] += " " + sizes.pop("unit")
    return {
        "leaderboard": points,
        "convergence": joined("epochs", "epoch", "val_iou"),
        "precision_recall": joined("curve", "threshold", "precision", "recall"),
        "reliability": joined("reliability", "probability", "building", "pixels"),
        "sizes": sizes,
    }
