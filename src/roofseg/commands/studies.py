"""Run the studies of studies/studies.yaml, or one of them, and gather their results.

  roofseg studies           all studies, and a page of all: studies/report.html
  roofseg studies budget    one study: budget, seeds or augmentation
  roofseg studies report    only the page, of the studies that were run
  roofseg studies none      DVC forgets the stages of all studies; their results stay

Checks studies.yaml, lists in studies/in_force.yaml what was asked for so far, and runs `dvc repro`
on stages of studies/dvc.yaml. Runs that are up to date are not repeated; after a stop, the same
command continues. docs/studies.md describes the question of each study.

Once `dvc repro` runs, the exit status is that of DVC: 0 done, 255 a stage failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from roofseg.commands.project import DATA, PARAMS, dvc_command, stage_environment
from roofseg.recipe.params import read_params
from roofseg.recipe.split import read_split
from roofseg.studies.declaration import SOURCE, STUDY_NAMES, check_budget, read_studies
from roofseg.studies.in_force import read_lists, stage_lists, write_lists

STAGES, IN_FORCE = "studies/dvc.yaml", Path("studies/in_force.yaml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        choices=[*STUDY_NAMES, "report", "none"],
        metavar="NAME",
        help=f"{', '.join(STUDY_NAMES)}, report or none (default: all studies and the report)",
    )


def main(args: argparse.Namespace) -> None:
    studies, params = read_studies(Path(SOURCE), read_params(PARAMS))
    check_budget(studies, read_split(DATA / params.dataset))
    before = read_lists(IN_FORCE)
    if args.name == "none":
        names, page = [], False
    else:
        asked = STUDY_NAMES if args.name is None else (args.name,)
        names = [*before["gathered"], *asked]
        page = bool(before["pages"]) or args.name in (None, "report")
    lists = stage_lists(studies, params, names, page)
    if lists != before:
        write_lists(IN_FORCE, lists)
    print(f"{IN_FORCE}: {', '.join([*lists['gathered'], *lists['pages']]) or 'none'}", flush=True)
    if args.name == "none":
        return
    targets = _targets(args.name)
    print("dvc repro", *targets, flush=True)
    # DVC replaces this process, so that signals reach it.
    os.execve(sys.executable, dvc_command("repro", *targets), stage_environment())


def _targets(name: str | None) -> list[str]:
    if name is None:
        return [STAGES]
    if name == "report":
        return ["--single-item", f"{STAGES}:page@report"]
    return [f"{STAGES}:gather@{name}"]
