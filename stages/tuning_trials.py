"""The trials of Optuna: runs of a grid that are trained here, one after the other.

Needs the package optuna, which requirements.lock has and the extra ``tune`` of pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from roofseg.adaptive import Outcome, Report, search
from roofseg.callbacks import EpochReport
from roofseg.files import read_json, write_json
from roofseg.recipe import Params
from roofseg.segmenter import NotFiniteError
from roofseg.studies import overridden
from roofseg.tuning import SOURCE, Run, Tuning
from stages.study_run import study_run
from stages.tuning_runs import RECORDS

DATABASE = Path("studies/optuna.db")


def try_out(attempt: str, space: Sequence[Run], tuning: Tuning, params: Params) -> None:
    """Search an attempt's grid; each trial leaves a record in `RECORDS`."""

    def train(run: Run, number: int, report: Report) -> Outcome:
        try:
            record = trial(run, number, report, params)
        except NotFiniteError as error:
            print(f"[{number + 1}/{tuning.runs}] {run.label}: {error}", flush=True)
            return Outcome(0.0, pruned=True)
        found = Outcome(record["val_iou"], record["pruned"])
        said = f"val IoU {found.val_iou:.4f}{' (pruned)' if found.pruned else ''}"
        print(f"[{number + 1}/{tuning.runs}] {run.label}: {said}", flush=True)
        return found

    recipe = overridden(params, attempt, space[0].overrides, source=SOURCE)
    # Before the thaw all runs look alike, and a first epoch after it says little.
    warmup = (recipe.thaw_epoch or 0) + 1
    search(space, runs=tuning.runs, seed=tuning.seed, warmup=warmup, train=train, database=DATABASE)


def trial(run: Run, number: int, report: Report, params: Params) -> dict[str, Any]:
    """The record of a run: that which is there, or what training it now gives."""
    path = RECORDS / f"{run.name}.json"
    if path.is_file():
        found: dict[str, Any] = read_json(path)
        return found
    prune = Prune(report)
    record = study_run(
        overridden(params, run.attempt, run.overrides, source=SOURCE),
        study="tuning",
        attempt=run.attempt,
        params=params,
        callbacks=[prune],
        note={"name": run.name, "trial": number},
    )
    assert record  # trials run on one device
    record["pruned"] = prune.pruned
    write_json(path, record)
    return record


class Prune(Callback):
    """Reports val IoU after each epoch, those before a resumed run was stopped too."""

    def __init__(self, report: Report) -> None:
        self.report, self.pruned, self.reported = report, False, 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        (epochs,) = (each for each in trainer.callbacks if isinstance(each, EpochReport))
        for row in epochs.rows[self.reported :]:
            self.reported += 1
            self.pruned = self.report(self.reported, row["val/iou"])
        # A run in its last epoch is whole, whatever is said of it.
        self.pruned = self.pruned and self.reported < pl_module.recipe.epochs
        trainer.should_stop = trainer.should_stop or self.pruned
