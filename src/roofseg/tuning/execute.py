"""Run recipes as DVC experiments of their attempt's stages, and read the results."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from roofseg.recipe.params import Params
from roofseg.tuning import dvc_queue
from roofseg.tuning.dvc_queue import Finished
from roofseg.tuning.grid import Run, settings
from roofseg.tuning.table import DONE, Result


def execute(
    batches: Iterable[Sequence[Run]],
    params: Params,
    *,
    total: int,
    jobs: int,
    ended: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run the batches one after the other, and print a line for each run that has ended.

    Finished runs are not repeated; runs that are already queued are waited for, not queued again.
    After an interrupt, running experiments are stopped and the others stay queued.

    Args:
        batches: batches of runs that can be run at the same time. The next batch is taken from the
            iterator when all runs of the previous batch have ended.
        params: the parameters in force.
        total: the number of runs of all batches, for the printed lines.
        jobs: number of runs at a time.
        ended: called after each of these lines.

    Returns:
        The names of the runs that failed.
    """
    failed: list[str] = []
    numbers = itertools.count(1)

    def tell(run: Run, outcome: str) -> None:
        print(f"[{next(numbers)}/{total}] {run.label}: {outcome}", flush=True)
        ended()

    for batch in batches:
        done = dvc_queue.finished()
        for run in batch:
            if run.name in done:
                tell(run, f"{_outcome(run, done)}, already finished")
        waiting = {run.name: run for run in batch if run.name not in done}
        if not waiting:
            continue
        _queue(waiting, params)
        with dvc_queue.workers(jobs, waiting):
            for name, succeeded in dvc_queue.watch(waiting):
                if succeeded:
                    tell(waiting[name], _outcome(waiting[name], dvc_queue.finished()))
                else:
                    failed.append(name)
                    tell(waiting[name], f"failed (dvc queue logs {name})")
    return failed


def _outcome(run: Run, finished: Mapping[str, Finished]) -> str:
    return f"val IoU {read_val_iou(run, finished):.4f}"


def _queue(runs: Mapping[str, Run], params: Params) -> None:
    """Queue the runs that are neither queued nor running; failed runs are queued again."""
    dvc_queue.forget(runs)
    tasks = dvc_queue.status().tasks
    for name, run in runs.items():
        if tasks.get(name) not in ("Queued", "Running"):
            targets = [f"{stage}@{run.attempt}" for stage in ("train", "evaluate")]
            dvc_queue.queue(name, settings(run, params), targets)
            print(f"queued {name}: {run.label}", flush=True)


def read_val_iou(run: Run, finished: Mapping[str, Finished]) -> float | None:
    """The mean IoU of a run over val tiles, as evaluate wrote it; None unless it is finished."""
    if run.name not in finished:
        return None
    text = finished[run.name].read(f"metrics/attempts/{run.attempt}/scores.json")
    return float(json.loads(text)["val"]["iou"])


def read_results(runs: Iterable[Run]) -> list[Result]:
    """The results of these runs; a run that is not finished has its state in DVC's queue."""
    finished, tasks = dvc_queue.finished(), dvc_queue.status().tasks
    results = []
    for run in runs:
        if run.name in finished:
            text = finished[run.name].read(f"metrics/attempts/{run.attempt}/tiles.csv")
            tiles = pd.read_csv(io.StringIO(text), dtype={"tile": str}, keep_default_na=False)
            results.append(Result(run, DONE, tiles[tiles.split == "val"]))
        else:
            results.append(Result(run, tasks.get(run.name, "not queued").lower()))
    return results
