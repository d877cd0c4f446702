"""A finished pipeline that the tests of this folder share."""

from __future__ import annotations

import os

import pytest
from filelock import FileLock
from project import Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline ran once and whose results are committed. Its path has a space.

    All processes of pytest-xdist share it, so tests only read it: they change a copy or a clone.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # its folder lies in one that all processes share
        folder = folder.parent
    with FileLock(folder / "finished.lock"):
        if not (done := folder / "finished.txt").exists():
            project = Project.create(folder / "a finished project")
            project.run("dvc repro")
            project.commit("results")
            done.touch()
    return Project(folder / "a finished project")
