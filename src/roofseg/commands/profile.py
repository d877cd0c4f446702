"""Put a profile in force: copy profiles/NAME.yaml to params.yaml.

Does not overwrite edits of params.yaml that are neither committed to git nor saved in profiles/.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from roofseg.commands.project import PARAMS, PROFILES, find_profile
from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write
from roofseg.core.terminal import warn
from roofseg.recipe.parsing import read_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="the profile: a file in profiles/, without its suffix"
    )


def main(args: argparse.Namespace) -> None:
    source = find_profile(args.name)
    profile = read_params(source)
    if PARAMS.exists() and not _is_kept_elsewhere():
        raise UserError(
            f"{PARAMS}: has uncommitted edits, which the profile would overwrite. Commit them, or "
            f"discard them with `git checkout {PARAMS}`, then run the command again."
        )
    dataset = _dataset_in_force()
    with atomic_write(PARAMS) as path:
        shutil.copyfile(source, path)
    print(f"{PARAMS} is now {source}. Next: dvc repro")
    if not any(profile.final.values()):
        print("No recipe in it is final, so test is sealed (roofseg finalize).")
    if dataset != profile.dataset and Path("metrics/leaderboard.md").exists():
        warn(
            "metrics/ and report.md show other tiles until `dvc repro` has run on "
            f"{profile.dataset}"
        )
    studies = Path("studies/profiles", args.name)
    if any(not _is_same(path, Path("studies", path.name)) for path in studies.glob("*")):
        print(f"Its studies and its tuning: roofseg studies none && cp {studies}/* studies/")


def _dataset_in_force() -> str | None:
    """The dataset in params.yaml; None if there is none, or if the file is not valid."""
    try:
        return read_params(PARAMS).dataset
    except UserError:
        return None


def _is_same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _is_kept_elsewhere() -> bool:
    """Whether params.yaml equals a profile or its own committed version: nothing would be lost."""
    current = PARAMS.read_bytes().splitlines()  # line ends may differ
    if any(profile.read_bytes().splitlines() == current for profile in PROFILES.glob("*.yaml")):
        return True
    try:
        shown = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True)
    except FileNotFoundError:  # git is not installed
        return False
    return shown.returncode == 0 and shown.stdout.splitlines() == current
