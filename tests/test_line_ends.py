"""Line ends: git leaves them alone on every machine, and files that a user saves may have either.

DVC hashes bytes: a checkout with other line ends than the committed ones would run every stage.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from graph import ROOT
from tiny_dataset import write_dataset

from roofseg.commands.edit_params import derive_profile, set_final
from roofseg.recipe.parsing import read_params
from roofseg.recipe.split import read_nudges, read_split
from roofseg.studies.declaration import read_studies
from roofseg.tiles.licence import Licence, read_licence
from roofseg.tuning.grid import read_tuning

SAMPLE = (ROOT / "profiles" / "sample.yaml").read_bytes()
ENDS = ("\n", "\r\n", "\ufeff\r\n")  # of Linux, of Windows, and of Windows with a byte-order mark


def git(*arguments: str | Path, folder: Path = ROOT) -> str:
    return subprocess.check_output(["git", *arguments], cwd=folder, text=True)


@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.eol=crlf"])
def test_a_checkout_has_the_committed_bytes(setting: str, tmp_path: Path) -> None:
    name, _, value = setting.partition("=")
    clone = tmp_path / "clone"
    git("clone", "-q", "--no-checkout", ROOT, clone)
    git("config", name, value, folder=clone)
    git("checkout", "-q", "HEAD", folder=clone)
    # Hash the files as they are, without the conversions that `git status` would undo.
    listed = git("ls-tree", "-r", "-z", "HEAD", folder=clone).rstrip("\0").split("\0")
    committed = {name: entry.split()[2] for entry, name in (line.split("\t") for line in listed)}
    found = git("hash-object", "--no-filters", *committed, folder=clone).split()
    assert dict(zip(committed, found, strict=True)) == committed


@pytest.mark.release
def test_no_committed_text_has_other_line_ends() -> None:
    kinds = {line.split()[0] for line in git("ls-files", "--eol").splitlines()}
    assert kinds <= {"i/lf", "i/none", "i/-text"}


def saved(path: Path, text: str, end: str) -> Path:
    """Save ``text``, whose lines end with a line feed, as an editor would."""
    mark, end = ("\ufeff", end[1:]) if end.startswith("\ufeff") else ("", end)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((mark + text.replace("\n", end)).encode())
    return path


@pytest.mark.parametrize("end", ENDS)
def test_tables_are_read_with_any_line_ends(end: str, tmp_path: Path) -> None:
    split = {"a": "train", "b": "val", "c": "test"}
    folder = write_dataset(tmp_path / "tiny", split, size=32)
    tables = {
        "split.csv": (folder / "split.csv").read_text(),
        "nudges.csv": "tile,row,col\na,0,12\n",
        "LICENSE.md": "SPDX-License-Identifier: CC-BY-4.0\n\nBy me.\nFor all.\n",
    }
    for name in tables:
        saved(folder / name, tables[name], end)
    assert read_split(folder) == split
    assert read_nudges(folder) == {"a": (0, 12)}
    assert read_licence(folder) == Licence("CC-BY-4.0", "By me.\nFor all.")


@pytest.mark.parametrize("end", ENDS)
def test_parameters_are_read_and_edited_with_any_line_ends(end: str, tmp_path: Path) -> None:
    expected = read_params(ROOT / "profiles" / "sample.yaml")
    path = saved(tmp_path / "params.yaml", SAMPLE.decode(), end)
    assert read_params(path) == expected
    derive_profile(path, tmp_path / "oslo.yaml", "oslo", 64)
    assert b"\r" not in (tmp_path / "oslo.yaml").read_bytes()
    set_final(path, dict.fromkeys(expected.attempts, "0" * 12))
    assert set(read_params(path).final.values()) == {"0" * 12}
    assert b"\r" not in path.read_bytes()


@pytest.mark.whole
def test_studies_and_tuning_are_read_with_other_line_ends(tmp_path: Path) -> None:
    params = read_params(ROOT / "profiles" / "sample.yaml")
    studies, tuning = (ROOT / "studies" / name for name in ("studies.yaml", "tuning.yaml"))
    copies = [saved(tmp_path / path.name, path.read_text(), ENDS[-1]) for path in (studies, tuning)]
    assert read_studies(copies[0], params) == read_studies(studies, params)
    more = {"dataset": ROOT / "data" / "sample", "pipeline": ROOT / "dvc.yaml"}
    assert read_tuning(copies[1], params, **more) == read_tuning(tuning, params, **more)
