"""Fixtures of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from intake_files import make_empty_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and DVC repository with one profile, which is the current folder."""
    folder = tmp_path / "project"
    make_empty_project(folder)
    monkeypatch.chdir(folder)
    return folder
