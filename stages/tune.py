"""Tune the attempts that studies/tuning.yaml names: ``make tune JOBS=2``.

Each run is a DVC experiment of its attempt's stages alone, and is scored on val alone, in a copy of
the project where test stays sealed. Runs that are done or queued are not queued again. With
``--engine optuna`` the same number of runs is chosen one after the other, by what those before them
came to.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.recipe.params import Params, read_params
from roofseg.tuning import dvc_queue
from roofseg.tuning.grid import Run, budget, settings
from stages import run
from stages.tuning_runs import check_final, make_ready, read_tuning


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tune", description=__doc__)
    parser.add_argument("--engine", choices=("grid", "optuna"), default="grid")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default 1)")
    args = parser.parse_args()
    if args.jobs < 1 or (args.engine == "optuna" and args.jobs > 1):
        most = "just 1 with --engine optuna" if args.engine == "optuna" else "at least 1"
        raise UserError(f"--jobs: found {args.jobs}; expected {most}")
    params = read_params(Path("params.yaml"))
    tuning, spaces = read_tuning(params)
    sizes = ", ".join(f"{len(space)} of {name}" for name, space in spaces.items())
    print(f"{tuning.runs} runs of each attempt, of grids of {sizes}", flush=True)
    if args.engine == "optuna":
        make_ready(spaces, params)
        from stages.tuning_trials import try_out  # torch and Optuna: seconds

        for name, space in spaces.items():
            try_out(name, space, tuning, params)
    else:
        check_final(spaces, params)
        tune(budget(spaces, tuning.runs), params, args.jobs)
    print("All runs are done. `make tuning-report` compares them.")


def tune(runs: list[Run], params: Params, jobs: int) -> None:
    """Run those that are not done, ``jobs`` at a time; UserError if any of them fails."""
    done = dvc_queue.finished().keys()
    waiting = {each.name: each for each in runs if each.name not in done}
    print(f"{len(runs) - len(waiting)} of {len(runs)} runs are done already", flush=True)
    if not waiting:
        return
    dvc_queue.forget(waiting)
    queued = dvc_queue.status().tasks
    for name, each in waiting.items():
        if queued.get(name) not in ("Queued", "Running"):
            targets = [f"{stage}@{each.attempt}" for stage in ("train", "evaluate")]
            dvc_queue.queue(name, settings(each, params), targets)
            print(f"queued {name}: {each.label}", flush=True)
    if jobs > 1:  # threads of several runs would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    failed = []
    try:
        dvc_queue.start(jobs)
        first = len(runs) - len(waiting) + 1
        for number, (name, succeeded) in enumerate(dvc_queue.watch(waiting), first):
            failed += [] if succeeded else [name]
            found = f"{waiting[name].label}: {outcome(waiting[name], succeeded)}"
            print(f"[{number}/{len(runs)}] {found}", flush=True)
    except BaseException:
        with dvc_queue.signals_wait():  # a second Ctrl-C: it takes some seconds
            try:
                print("stopping what runs, after its last whole epoch; `make tune` goes on")
            finally:  # Ctrl-C ends whatever is at the other end of a pipe, too
                dvc_queue.stop(waiting)
        raise
    if failed:
        raise UserError(
            f"{len(failed)} of {len(waiting)} runs failed; `dvc queue logs {failed[0]}` says why. "
            "The same command tries them again."
        )


def outcome(each: Run, succeeded: bool) -> str:
    """What the line of a run that has ended says of it."""
    if not succeeded:
        return f"failed (dvc queue logs {each.name})"
    experiment = dvc_queue.finished()[each.name]
    scores = json.loads(experiment.read(f"metrics/attempts/{each.attempt}/scores.json"))
    return f"val IoU {scores['val']['iou']:.4f}"


if __name__ == "__main__":
    run(main)
