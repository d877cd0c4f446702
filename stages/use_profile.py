"""Put a profile in force: ``python -m stages.use_profile NAME`` makes it params.yaml."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from roofseg.errors import UserError
from roofseg.files import write_text
from stages import run
from stages.parameters import read_params

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
    if PARAMS.exists() and PARAMS.read_bytes() != source.read_bytes() and _edited():
        raise UserError(
            "params.yaml has edits that are not committed; a profile would overwrite them. "
            "Commit them, or `git checkout params.yaml`, and try again."
        )
    write_text(PARAMS, source.read_text())
    print(f"params.yaml is now {source}. Next: dvc repro")


def _edited() -> bool:
    """Whether params.yaml differs from the git commit (outside git, any file counts as edited)."""
    command = ["git", "status", "--porcelain", "--", str(PARAMS)]
    shown = subprocess.run(command, capture_output=True, text=True)
    return shown.returncode != 0 or bool(shown.stdout.strip())


if __name__ == "__main__":
    run(main)
