"""Run the recipes of studies/tuning.yaml as DVC experiments.

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
from collections.abc import Iterable
from pathlib import Path

from roofseg.commands.arguments import count
from roofseg.commands.project import DATA, PARAMS, stage_environment
from roofseg.core.errors import UserError
from roofseg.core.progress import bar
from roofseg.recipe.params import Params
from roofseg.recipe.parsing import parse_params, read_params
from roofseg.tuning import dvc_queue
from roofseg.tuning.execute import execute, read_val_iou
from roofseg.tuning.grid import Spaces, Tuning, read_tuning
from roofseg.tuning.sampler import batches

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
    params = read_params(PARAMS)
    tuning, spaces = tuning_in_force(params)
    check_final(spaces, params)
    # DVC, its workers and the stages inherit the environment of this process.
    os.environ |= stage_environment()
    if args.jobs > 1:  # more threads than cores would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // args.jobs)))
    sizes = ", ".join(f"{len(space)} recipes of {name}" for name, space in spaces.items())
    picked_from = f"picked by the sampler {tuning.sampler} from {sizes}"
    print(f"{tuning.runs} runs of each attempt, {picked_from}", flush=True)
    total = tuning.runs * len(spaces)
    picked = batches(tuning, spaces, SEARCHES, lambda run: read_val_iou(run, dvc_queue.finished()))
    with bar("Tuning", total, lines=False) as shown:
        failed = execute(picked, params, total=total, jobs=args.jobs, ended=shown.advance)
    if failed:
        raise UserError(
            f"{len(failed)} of {total} runs failed; `dvc queue logs {failed[0]}` says why. "
            "The same command tries them again."
        )
    print("All runs are done. `roofseg tuning-report` compares them.")


def tuning_in_force(params: Params) -> tuple[Tuning, Spaces]:
    """Read studies/tuning.yaml, and build the grids that it declares."""
    return read_tuning(TUNING, params, dataset=DATA / params.dataset, pipeline=Path("dvc.yaml"))


def check_final(attempts: Iterable[str], params: Params) -> None:
    """Raise UserError if ``final`` has uncommitted changes: evaluate would fail after training."""
    commit = dvc_queue.head()
    committed = parse_params(dvc_queue.Finished(commit, commit).read("params.yaml")).final
    for name in attempts:
        if params.final[name] != committed.get(name):
            raise UserError(
                f"params.yaml: final.{name}: found {params.final[name]!r}, but "
                f"{committed.get(name)!r} in the current commit. Commit params.yaml, or undo "
                "the change: otherwise each run fails in evaluate, after its training."
            )
