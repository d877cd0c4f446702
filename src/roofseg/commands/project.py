"""The project that commands work on: the current folder, and DVC in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from roofseg.core.errors import UserError

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
DATA = Path("data")


def check_project_folder() -> None:
    """Raise UserError unless the current folder is the root of a project."""
    if not Path("dvc.yaml").is_file():
        raise UserError(
            f"{Path.cwd()}: no dvc.yaml here. Run this command in the root folder of a roofseg "
            "project (a clone of its repository)."
        )


def find_profile(name: str) -> Path:
    """The file of the profile ``name``; UserError with the known names if there is none."""
    profiles = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in profiles:
        raise UserError(
            f"{PROFILES}: no profile {name!r}; choose one of: {', '.join(profiles) or 'none'}"
        )
    return PROFILES / f"{name}.yaml"


def dvc_command(*arguments: str | Path) -> list[str]:
    """The command line that runs DVC with this Python."""
    return [sys.executable, "-m", "dvc", *map(str, arguments)]


def stage_environment() -> dict[str, str]:
    """The environment for DVC to run stages in: they call `python`, which must be this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
