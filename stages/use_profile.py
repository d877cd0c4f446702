"""Put a profile in force: ``python -m stages.use_profile NAME`` makes it params.yaml."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write
from roofseg.recipe.params import read_params
from stages import run

PROFILES, PARAMS = Path("profiles"), Path("params.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="of a file in profiles/")
    name = parser.parse_args().name
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        raise UserError(f"no profile {name!r}; say NAME=one of: {', '.join(known)}")
    source = PROFILES / f"{name}.yaml"
    read_params(source)
    if PARAMS.exists() and not _kept_elsewhere():
        raise UserError(
            "params.yaml has edits that are not committed; a profile would overwrite them. "
            "Commit them, or `git checkout params.yaml`, and try again."
        )
    with atomic_write(PARAMS) as path:
        shutil.copyfile(source, path)
    print(f"params.yaml is now {source}. Next: dvc repro")


def _kept_elsewhere() -> bool:
    """Whether params.yaml is one of the profiles, or as in the git commit: nothing to lose."""
    current = PARAMS.read_bytes()
    if any(profile.read_bytes() == current for profile in PROFILES.glob("*.yaml")):
        return True
    try:
        shown = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True)
    except FileNotFoundError:  # no git here
        return False
    return shown.returncode == 0 and shown.stdout == current


if __name__ == "__main__":
    run(main)
