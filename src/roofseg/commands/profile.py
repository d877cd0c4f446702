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
from roofseg.recipe.params import read_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="the profile: a file in profiles/, without its suffix"
    )


def main(args: argparse.Namespace) -> None:
    source = find_profile(args.name)
    read_params(source)
    if PARAMS.exists() and not _is_kept_elsewhere():
        raise UserError(
            f"{PARAMS}: has uncommitted edits, which the profile would overwrite. Commit them, or "
            f"discard them with `git checkout {PARAMS}`, then run the command again."
        )
    with atomic_write(PARAMS) as path:
        shutil.copyfile(source, path)
    print(f"{PARAMS} is now {source}. Next: dvc repro")
    if (studies := Path("studies/profiles", args.name)).is_dir():
        print(f"Its studies and its tuning: roofseg studies none && cp {studies}/* studies/")


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
