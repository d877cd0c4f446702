"""Follow the worked examples of a page: make its edits, run its commands."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from graph import ROOT
from project import Project

BLOCK = re.compile(r"^```(diff|console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The sample on tiny tiles: a line of its profile, and the line instead.
TINY = {
    "dataset: sample": "dataset: tiny",
    "patch_size: 224": "patch_size: 64",
    "generated:  # datasets; only sample can be generated\n  - sample": "generated: []",
    "epochs: 12": "epochs: 2",
    "draws_per_epoch: 40": "draws_per_epoch: 4",
}
# The study of seeds alone, of one attempt and seed: the example adds one more of each.
TINY_STUDY = {
    "      - unet_imagenet\n      - deeplabv3plus_imagenet\n    seeds:\n      - 1\n      - 2\n"
    "      - 3\n": "    seeds:\n",
    "      - 5\n      - 12\n      - 24\n": "      - 1\n      - 2\n",
    "epochs: 6": "epochs: 2",
    "draws_per_epoch: 24": "draws_per_epoch: 4",
}


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def edit(folder: Path, diff: str) -> Path:
    """Make the edits of a block: lines of a file, which it has once, become others."""
    name, *hunks = re.split(r"^@@\n", diff, flags=re.MULTILINE)
    path = folder / name.removeprefix("+++ ").strip()
    text = "\n" + path.read_text()
    for hunk in hunks:
        lines = [line or " " for line in hunk.splitlines()]
        old, new = (
            "".join(f"\n{line[1:]}" for line in lines if line[0] in kinds) for kinds in (" -", " +")
        )
        assert text.count(f"{old}\n") == 1, f"{path}: expected once:{old}"
        text = text.replace(f"{old}\n", f"{new}\n")
    path.write_text(text[1:])
    return path


def steps(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a console, each with the lines that it prints."""
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    return [(command, printed.splitlines()) for command, printed in commands]


def sample_on_tiny_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the sample's recipe on tiny tiles, and what the examples take for granted."""
    project = Project.create(tmp_path / "project")
    sample = (ROOT / "profiles" / "sample.yaml").read_text()
    (project.folder / "params.yaml").write_text(replaced(sample, TINY))
    studies = (ROOT / "studies/profiles/sample/studies.yaml").read_text()
    (project.folder / "studies" / "studies.yaml").write_text(replaced(studies, TINY_STUDY))
    project.commit("the sample on tiny tiles")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.setenv("PYTHONPATH", "src")
    # The command `roofseg` as make installs it.
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "roofseg"
    command.write_text('#!/bin/sh\nexec python -m roofseg "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return project
