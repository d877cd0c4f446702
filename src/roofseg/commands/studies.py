"""Run the studies of studies/studies.yaml, or one of them, and gather what they found.

  roofseg studies            all studies, and the page of all, studies/report.html
  roofseg studies budget     one study: budget, seeds or augmentation
  roofseg studies report     the page alone, of the studies that were run

Checks all of studies.yaml, then becomes `dvc repro` of stages in studies/dvc.yaml. Runs that are up
to date are not repeated, and a stopped study goes on with the same command. docs/studies.md says
what each study answers.

Exit status: that of `dvc repro`; 2 an error in studies.yaml or params.yaml, with a message.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from roofseg.commands.project import DATA, PARAMS, dvc_command, stage_environment
from roofseg.recipe.params import read_params
from roofseg.recipe.split import read_split
from roofseg.studies.declaration import STUDY_NAMES, check_budget, read_studies

STUDIES = Path("studies/studies.yaml")
STAGES = "studies/dvc.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        choices=[*STUDY_NAMES, "report"],
        metavar="NAME",
        help=f"{', '.join(STUDY_NAMES)} or report (default: all of them)",
    )


def main(args: argparse.Namespace) -> None:
    studies, params = read_studies(STUDIES, read_params(PARAMS))
    check_budget(studies, read_split(DATA / params.dataset), source=str(STUDIES))
    targets = _targets(args.name)
    print("dvc repro", *targets, flush=True)
    # DVC replaces this process, so that signals reach it.
    os.execve(sys.executable, dvc_command("repro", *targets), stage_environment())


def _targets(name: str | None) -> list[str]:
    if name is None:
        return [STAGES]
    if name == "report":
        return ["--single-item", f"{STAGES}:report"]
    return [f"{STAGES}:gather@{name}"]
