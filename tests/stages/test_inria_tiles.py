"""The stage of the Inria tiles: its environment variables, and its first lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from graph import ROOT
from project import environment


def run(folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """The stage as DVC runs it, in ``folder``, with this checkout's code."""
    (folder / "dvc.yaml").touch()
    return subprocess.run(
        [sys.executable, "-m", "stages.inria_tiles"],
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(ROOT), **extra},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("named", "found"), [("~/nosuch", "HOME/nosuch"), ("~nobody-here/x",) * 2])
def test_terms_are_printed_first_and_a_missing_source_is_named(
    tmp_path: Path, named: str, found: str
) -> None:
    done = run(tmp_path, INRIA_SOURCE=named, HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout.startswith("The Inria Aerial Image Labeling Dataset")
    assert "By going on you accept them" in done.stdout
    found = found.replace("HOME", str(tmp_path))
    assert done.stderr.startswith(f"error: {found}: no such folder")
    assert not list((tmp_path / "data" / "inria").rglob("*.tif"))


@pytest.mark.whole
def test_without_a_source_the_tiles_are_downloaded(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:1"  # a port that only root could serve on
    done = run(tmp_path, INRIA_SOURCE="", HF_ENDPOINT=nobody, HF_HOME=str(tmp_path / "hub"))
    assert done.returncode == 2
    assert "images/austin1.tif of blanchon/INRIA-Aerial-Image-Labeling" in done.stderr
    assert "INRIA_SOURCE" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "data" / "inria").iterdir()) == []


def test_an_archive_as_source_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "tiles.zip").touch()
    done = run(tmp_path, INRIA_SOURCE="tiles.zip")
    assert done.returncode == 2
    assert "`cd . && unzip tiles.zip`" in done.stderr
    assert "Traceback" not in done.stderr
