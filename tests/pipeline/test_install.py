"""`make .venv/installed` leaves the command `roofseg`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from graph import ROOT

from roofseg.version import VERSION

# A stand-in for Python that `make` uses: it copies itself into .venv, and installs nothing.
PYTHON = f"""#!/bin/sh
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip install "*) ;;
    *) exec "{sys.executable}" "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout, installed as the Makefile does it, but for the minutes that packages take."""
    folder = tmp_path_factory.mktemp("any") / "a path's name, ü"
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "src" / "roofseg" / "version.py").write_text('VERSION = "of this clone"\n')
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    subprocess.run(["make", "PYTHON=./python", ".venv/installed"], cwd=folder, check=True)
    return folder


def called(command: Path | str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [command, "--version"],
        cwd=cwd,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_it_runs_the_src_beside_it(clone: Path, tmp_path: Path) -> None:
    """Wherever it is called, whatever lies there, by whatever name, beside whatever PYTHONPATH."""
    (tmp_path / "argparse.py").write_text("raise RuntimeError")
    (tmp_path / "link").symlink_to(clone / ".venv" / "bin" / "roofseg")
    search = f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for cwd, command in (
        (tmp_path, clone / ".venv" / "bin" / "roofseg"),
        (clone, Path(".venv/bin/roofseg")),
        (tmp_path, tmp_path / "link"),
        (tmp_path, "roofseg"),
    ):
        told = called(command, cwd, PATH=search, PYTHONPATH=str(ROOT / "src"))
        assert told == "roofseg of this clone\n" != f"roofseg {VERSION}\n"


def test_arguments_and_status_are_passed_on(clone: Path, tmp_path: Path) -> None:
    command = [clone / ".venv" / "bin" / "roofseg", "predict", "a b.tif", "--out", tmp_path / "o"]
    done = subprocess.run(
        [*command, "--model", "no such"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no such: expected a model, found nothing")


def test_a_second_time_there_is_nothing_to_do(clone: Path) -> None:
    made = [clone / ".venv" / "installed", clone / ".venv" / "bin" / "roofseg"]
    before = [path.stat().st_mtime_ns for path in made]
    subprocess.run(["make", ".venv/installed"], cwd=clone, check=True)
    assert [path.stat().st_mtime_ns for path in made] == before
