"""Each test starts a process of its own, since an audit hook cannot be removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from graph import ROOT
from tiers import cases

GUARDED = """
import io, os, sys
from pathlib import Path
from roofseg.core import guard
guard.install_guard([Path("patches/test"), Path("data/x/imgs")], "train")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("patches/test/a.csv", "patches/test2/a.csv", "data/x/imgs/a.png", "elsewhere/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("sealed?")
    (tmp_path / "link.csv").symlink_to(tmp_path / "patches" / "test" / "a.csv")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    (tmp_path / ".hidden").symlink_to(tmp_path / "patches" / "test" / "a.csv")
    # DVC can link its outputs into its cache.
    (tmp_path / "patches" / "test" / "cached").symlink_to(tmp_path / "elsewhere" / "b")
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-c", GUARDED + code)


@pytest.mark.parametrize(
    "opening",
    [
        "open('patches/test/a.csv')",
        "open('patches/test/a.csv', 'w')",
        "Path('patches/test/a.csv').read_bytes()",
        "io.FileIO(b'patches/test/a.csv')",
        "os.open('patches/test/a.csv', os.O_RDONLY)",
        "open(os.path.abspath('patches/train/../test/a.csv'))",
        "open('patches/train/../test/a.csv')",
        "os.chdir('patches'); open('test/a.csv')",
        "open('link.csv')",
        "open('linked/x/imgs/a.png')",
        "open('.hidden')",
        "open('patches/test/cached')",
        "open('data/x/imgs/new.png', 'w')",
        "import numpy; numpy.fromfile('patches/test/a.csv')",
    ],
)
def test_opening_a_sealed_file_raises(folder: Path, opening: str) -> None:
    done = run(folder, opening)
    assert done.returncode == 1
    assert "SealedTestError: train opened " in done.stderr
    assert "which is sealed for it" in done.stderr
    assert (folder / "patches" / "test" / "a.csv").read_text() == "sealed?"


@pytest.mark.parametrize(
    "opening",
    [
        "open('patches/test2/a.csv')",
        "open('elsewhere/b')",
        "open('patches/new', 'w')",
        "open('data/x/imgs/.gitignore', 'w')",
        "with guard.unsealed(): open('patches/test/a.csv')",
        "guard.raise_violation()",
    ],
)
def test_other_files_open(folder: Path, opening: str) -> None:
    done = run(folder, opening)
    assert done.returncode == 0, done.stderr


def test_the_guard_is_back_after_it_was_lifted(folder: Path) -> None:
    done = run(folder, "with guard.unsealed(): pass\nopen('patches/test/a.csv')")
    assert "SealedTestError" in done.stderr


def test_a_violation_that_was_caught_is_raised_at_the_end(folder: Path) -> None:
    caught = "try: open('patches/test/a.csv')\nexcept Exception: pass\n"
    assert run(folder, caught).returncode == 0
    assert "SealedTestError" in run(folder, caught + "guard.raise_violation()").stderr


@pytest.mark.parametrize(
    "start", cases(["fork", "spawn", "forkserver"], whole=["spawn", "forkserver"])
)
def test_workers_have_the_guard_however_they_start(folder: Path, start: str) -> None:
    (folder / "work.py").write_text(
        GUARDED.replace("guard.install_guard", "__name__ == '__main__' and guard.install_guard")
        + f"""
from torch.utils.data import DataLoader, Dataset
class Peeking(Dataset):
    def __len__(self): return 1
    def __getitem__(self, index): return open("patches/test/a.csv").read()
if __name__ == "__main__":
    options = dict(worker_init_fn=guard.worker_guard()) if len(sys.argv) == 1 else {{}}
    list(DataLoader(Peeking(), num_workers=1, multiprocessing_context="{start}", **options))
"""
    )
    done = python(folder, "work.py")
    assert done.returncode == 1
    assert "SealedTestError: " in done.stderr
    assert "train (worker 0) opened" in done.stderr
    # Without worker_init_fn only a fork has the hook.
    assert (python(folder, "work.py", "without").returncode == 0) == (start != "fork")
