"""Runs of studies for tests: records on disk, and their scores as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from project import PARAMS

from roofseg.core.files import write_json
from roofseg.recipe.parsing import parse_params


def study_scores(
    *,
    attempt: str,
    seed: int,
    ious: Sequence[float] | np.ndarray,
    augmentation: str = "light",
    tiles: int = 2,
) -> pd.DataFrame:
    """The table of `read_record` for a run with these IoUs, one per val tile."""
    values = np.asarray(ious)
    return pd.DataFrame(
        {
            "attempt": attempt,
            "label": attempt,
            "tiles": tiles,
            "augmentation": augmentation,
            "seed": seed,
            "epochs": 3,
            "draws": 4,
            "best_epoch": 2,
            "failure": "",
            "fold": 0,
            "split": "val",
            "tile": [f"t{index}" for index in range(len(values))],
            "iou": values,
            "f1": 2 * values / (1 + values),
            "side": np.nan,
            "touching": 0,
            "unplaced": 0,
        }
    )


def write_run(
    path: Path,
    *,
    attempt: str,
    seed: int,
    counts: Sequence[tuple[int, int, int]],
    augmentation: str = "light",
    tiles: int = 2,
    failure: str | None = None,
    fold: int = 0,
    division: dict[str, Any] | None = None,
    first: int = 0,
    **changes: Any,
) -> None:
    """Write the record of a run with these counts (tp, fp, fn), one triple per val tile.

    ``division`` is that of a run of folds, ``first`` the number of the first tile, and ``changes``
    are further keys of its recipe.
    """
    recipe: dict[str, Any] = parse_params(PARAMS).recipe("small").model_dump(mode="json")
    recipe |= {"seed": seed, "augmentation": augmentation, **changes}
    record = {
        "dataset": "tiny",
        "patch_size": 64,
        "fold": fold,
        "attempt": attempt,
        "label": attempt,
        "train_tiles": [f"train{index}" for index in range(tiles)],
        "recipe": recipe,
        "division": division or {},
        "result": {"best_epoch": 2, "failure": failure},
        "scored": [
            {"tile": f"t{index}", "tp": tp, "fp": fp, "fn": fn, "tn": 0}
            for index, (tp, fp, fn) in enumerate(counts, first)
        ],
    }
    write_json(path, record)
