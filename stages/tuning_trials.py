"""The trials of Optuna: runs of a grid that are trained here, one after the other.

Needs the package optuna, which requirements.lock has and the extra ``tune`` of pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roofseg.core.files import read_json, write_json
from roofseg.recipe.params import Params
from roofseg.studies.declaration import overridden
from roofseg.training.segmenter import NotFiniteError
from roofseg.tuning.grid import SOURCE, Run, Tuning, search_name, warmup
from roofseg.tuning.pruning import Prune
from roofseg.tuning.samplers import Outcome, Report, search
from roofseg.tuning.table import DONE, trial_state
from stages.study_run import study_run
from stages.tuning_runs import RECORDS

DATABASE = Path("studies/optuna.db")


def try_out(attempt: str, space: Sequence[Run], tuning: Tuning, params: Params) -> None:
    """Search an attempt's grid; each trial leaves a record in `RECORDS`."""
    name = search_name(space)

    def train(run: Run, number: int, report: Report) -> Outcome:
        record = trial(run, name, number, report, params)
        print(f"[{number + 1}/{tuning.runs}] {run.label}: {_said(record)}", flush=True)
        return Outcome(record["val_iou"] or 0.0, pruned=trial_state(record) != DONE)

    search(
        space,
        runs=tuning.runs,
        seed=tuning.seed,
        warmup=warmup(space, params),
        train=train,
        database=DATABASE,
    )


def trial(run: Run, name: str, number: int, report: Report, params: Params) -> dict[str, Any]:
    """The record of a run: that which is there, or what training it now gives.

    Its ``trials`` are the numbers (from 0) that it has in the searches which came upon it, ``name``
    being the one at work; ``curve`` is the val IoU of each epoch.
    """
    path = RECORDS / f"{run.name}.json"
    if path.is_file():
        found: dict[str, Any] = read_json(path)
        for epoch, val_iou in enumerate(found["curve"], 1):
            report(epoch, val_iou)
        if found["trials"].get(name) != number:
            found["trials"][name] = number
            write_json(path, found)
        return found
    recipe = overridden(params, run.attempt, run.overrides, source=SOURCE)
    prune = Prune(report)

    def note() -> dict[str, Any]:
        own = {"name": run.name, "trials": {name: number}}
        return {**own, "pruned": prune.pruned, "curve": prune.curve}

    try:
        record = study_run(
            recipe,
            study="tuning",
            attempt=run.attempt,
            params=params,
            out=path,
            callbacks=[prune],
            note=note,
        )
    except NotFiniteError as error:  # before there was a score
        record = {
            **{"attempt": run.attempt, **note(), "recipe": recipe.model_dump(mode="json")},
            **{"result": {"failure": str(error)}, "val": [], "val_iou": None},
        }
        write_json(path, record)
    assert record  # trials run on one device
    return record


def _said(record: Mapping[str, Any]) -> str:
    score, failure = record["val_iou"], record["result"]["failure"]
    said = "no score" if score is None else f"val IoU {score:.4f}"
    if (state := trial_state(record)) != DONE:
        said += f" ({state}{f': {failure}' if failure else ''})"
    return said
