"""Run the studies of studies/studies.yaml, or one of them.

  roofseg studies           all studies, and a page of all: studies/report.html
  roofseg studies budget    one study: budget, seeds, augmentation or folds
  roofseg studies report    only the page, of the studies that were run
  roofseg studies none      DVC forgets all studies; their results stay

Checks studies.yaml, lists in studies/in_force.yaml what was asked for so far, and runs `dvc repro`
on stages of studies/dvc.yaml, which train the runs and gather their results. Runs that are up to
date are not repeated; after a stop, the same command continues. docs/studies.md describes the
question of each study.

Once `dvc repro` runs, the exit status is that of DVC: 0 done, 255 a stage failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from roofseg.commands.project import DATA, PARAMS, dvc_command, stage_environment
from roofseg.core.errors import UserError
from roofseg.recipe.parsing import read_params
from roofseg.recipe.split import read_split
from roofseg.studies.declaration import SOURCE, STUDY_NAMES, check_budget, read_studies
from roofseg.studies.in_force import IN_FORCE, NONE, read_lists, stage_lists, write_lists
from roofseg.studies.report.records import finished_runs

STAGES = "studies/dvc.yaml"
RESULTS = Path("metrics/studies")
RUNS = RESULTS / "runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        choices=[*STUDY_NAMES, "report", "none"],
        metavar="NAME",
        help=f"{', '.join(STUDY_NAMES)}, report or none (default: all studies and the report)",
    )


def main(args: argparse.Namespace) -> None:
    if args.name == "none":  # reads no file: one of them may be damaged or of another profile
        write_lists(Path(IN_FORCE), NONE)
        print(f"{IN_FORCE}: none")
        return
    if args.name == "report" and not RESULTS.is_dir():
        raise UserError(
            f"{RESULTS}: no such folder, so there is nothing to report. Run a study first, for "
            "example `roofseg studies seeds`."
        )
    studies, params = read_studies(Path(SOURCE), read_params(PARAMS))
    check_budget(studies, read_split(DATA / params.dataset))
    before = read_lists(Path(IN_FORCE))
    names = [*before["gathered"], *(STUDY_NAMES if args.name is None else [args.name])]
    page = bool(before["pages"]) or args.name in (None, "report")
    lists = stage_lists(studies, params, names, page)
    if lists != before:
        write_lists(Path(IN_FORCE), lists)
    print(f"{IN_FORCE}: {', '.join([*lists['gathered'], *lists['pages']])}", flush=True)
    for name in STUDY_NAMES if args.name is None else [args.name]:
        if name in lists["gathered"]:
            study = studies.study(name)
            finished = finished_runs(RUNS, name, study, params)
            print(f"{name}: {len(finished)} of {len(study.runs())} runs are done", flush=True)
    targets = _targets(args.name)
    print("dvc repro", *targets, flush=True)
    # DVC replaces this process, so that signals reach it.
    os.execve(sys.executable, dvc_command("repro", *targets), stage_environment())


def _targets(name: str | None) -> list[str]:
    """The arguments of `dvc repro`."""
    if name == "report":
        return ["--single-item", f"{STAGES}:page@report"]
    # All recipes: those of other studies depend on in_force.yaml too. Without any stage in the
    # file, DVC would take its bare name for the whole project.
    stages = ["recipe", f"gather@{name}"] if name else ["recipe", "gather", "page"]
    return [f"{STAGES}:{stage}" for stage in stages]
