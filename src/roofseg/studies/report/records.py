"""Read the records of a study's runs, one JSON file per run, as a table of scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.core.files import read_json
from roofseg.metrics import f1, iou
from roofseg.recipe.params import Params
from roofseg.studies.declaration import Folds, Study


def record_file(records: Path, name: str, run: str) -> Path:
    """The path of the record of a run of the study ``name``, in the folder ``records``."""
    return records / name / f"{run}.json"


def read_record(records: Path, name: str, run: str) -> pd.DataFrame:
    """Read the record of a run: one row per tile that it is scored on.

    Columns: attempt, label, tiles (number of training tiles), augmentation, seed, epochs (at most)
    and draws (per epoch), best_epoch (from 1), failure (empty, or why the run ended early), fold
    (from 1; 0 in other studies), tile, its split in split.csv, iou and f1; and of the division
    into folds (0, empty or NaN in other studies) folds, division (its hash), side, touching and
    unplaced, see `roofseg.studies.folds.FoldTable.record`.

    Raises:
        UserError: the record is missing (names the DVC stage that makes it) or broken
    """
    path = record_file(records, name, run)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Run `dvc repro studies/dvc.yaml:{name}@{run}`.")
    record = read_json(path)
    recipe, result = record["recipe"], record["result"]
    scored = pd.DataFrame(record["scored"])
    division = record.get("division", {})
    side = division.get("side")
    return pd.DataFrame(
        {
            "attempt": record["attempt"],
            "label": record["label"],
            "tiles": len(record["train_tiles"]),
            "augmentation": recipe["augmentation"],
            "seed": recipe["seed"],
            "epochs": recipe["epochs"],
            "draws": recipe["draws_per_epoch"],
            "best_epoch": result["best_epoch"],
            "failure": result["failure"] or "",
            "fold": record.get("fold", 0),
            "tile": scored.tile,
            "split": scored.get("split", "val"),
            "iou": iou(scored.tp, scored.fp, scored.fn),
            "f1": f1(scored.tp, scored.fp, scored.fn),
            "folds": division.get("folds", 0),
            "division": division.get("sha256", ""),
            "side": float("nan") if side is None else side,
            "touching": division.get("touching", 0),
            "unplaced": division.get("unplaced", 0),
        }
    )


def read_records(records: Path, name: str, study: Study) -> pd.DataFrame:
    """The rows of `read_record` for all runs of a study; UserError if a record is missing."""
    return pd.concat([read_record(records, name, run) for run in study.runs()])


def finished_runs(records: Path, name: str, study: Study, params: Params) -> list[str]:
    """The runs of a study whose records match the dataset, patch size and recipes in force.

    Records of another profile, or of earlier parameters, stay in the folder but are ignored. Those
    of folds must be of the study's number of folds and seed, and of one division: where tiles have
    changed between runs, the runs of the division that most have.
    """
    found = {
        run: record
        for run, values in study.runs().items()
        if (path := record_file(records, name, run)).is_file()
        and _matches(record := read_json(path), study, params, values)
    }
    if not isinstance(study, Folds):
        return list(found)
    divisions = {run: record["division"]["sha256"] for run, record in found.items()}
    in_force = max(divisions.values(), key=[*divisions.values()].count, default=None)
    return [run for run, division in divisions.items() if division == in_force]


def _matches(
    record: Mapping[str, Any], study: Study, params: Params, values: Mapping[str, Any]
) -> bool:
    recipe = study.recipe(params, values).model_dump(mode="json")
    if isinstance(study, Folds):
        division = record.get("division", {})
        if (division.get("folds"), division.get("seed")) != (study.folds, study.seed):
            return False
    found = tuple(record.get(key) for key in ("dataset", "patch_size", "recipe"))
    return found == (params.dataset, params.patch_size, recipe)
