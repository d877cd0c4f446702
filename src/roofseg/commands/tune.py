"""Run the recipes that studies/tuning.yaml declares, each as a DVC experiment.

Each run trains its attempt and scores it on val, in a copy of the project in which test stays
sealed. The sampler named in tuning.yaml picks the runs: `grid` takes a seeded sample of each
attempt's grid; `tpe` picks each run of an attempt by the results of its earlier runs (needs the
extra `tune`).

After a stop or a failed run, the same command continues: it repeats failed runs, but no finished
ones. `dvc exp show` lists the runs; `roofseg tuning-report` compares them and prints how to apply
the best.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from roofseg.commands.arguments import count
from roofseg.core.errors import UserError
from roofseg.recipe.params import Params, parse_params, read_params

TUNING, SEARCHES = Path("studies/tuning.yaml"), Path("studies/searches.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=count,
        default=1,
        metavar="N",
        help="runs at a time (default: %(default)s); with the sampler tpe, at most one per attempt",
    )


def main(args: argparse.Namespace) -> None:
    from roofseg.tuning import dvc_queue  # with pandas: `--help` must not wait for it
    from roofseg.tuning.execute import execute, read_val_iou
    from roofseg.tuning.grid import read_tuning
    from roofseg.tuning.sampler import batches

    params = read_params(Path("params.yaml"))
    tuning, spaces = read_tuning(
        TUNING, params, dataset=Path("data") / params.dataset, pipeline=Path("dvc.yaml")
    )
    check_final(spaces, params)
    prepare_environment(args.jobs)
    sizes = ", ".join(f"{len(space)} recipes of {name}" for name, space in spaces.items())
    picked_from = f"picked by the sampler {tuning.sampler} from {sizes}"
    print(f"{tuning.runs} runs of each attempt, {picked_from}", flush=True)
    total = tuning.runs * len(spaces)
    picked = batches(tuning, spaces, SEARCHES, lambda run: read_val_iou(run, dvc_queue.finished()))
    failed = execute(picked, params, total=total, jobs=args.jobs)
    if failed:
        raise UserError(
            f"{len(failed)} of {total} runs failed; `dvc queue logs {failed[0]}` says why. "
            "The same command tries them again."
        )
    print("All runs are done. `roofseg tuning-report` compares them.")


def check_final(attempts: Iterable[str], params: Params) -> None:
    """Raise UserError if ``final`` has uncommitted changes: evaluate would fail after training."""
    from roofseg.tuning.dvc_queue import Finished, head

    commit = head()
    committed = parse_params(Finished(commit, commit).read("params.yaml")).final
    for name in attempts:
        if params.final[name] != committed.get(name):
            raise UserError(
                f"params.yaml: final.{name}: found {params.final[name]!r}, but "
                f"{committed.get(name)!r} in the current commit. Commit params.yaml, or undo "
                "the change: otherwise each run fails in evaluate, after its training."
            )


def prepare_environment(jobs: int) -> None:
    """Set the variables of this process that DVC, its workers and the stages inherit."""
    # DVC starts its workers as `dvc`, and the stages as `python`: both must be found first on PATH.
    own = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
    if jobs > 1:  # more threads than cores would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
