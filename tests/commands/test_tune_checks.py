"""The checks of `roofseg tune` and `roofseg tuning-report` before they write anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from graph import ROOT
from project import PARAMS, environment, git
from tiers import cases
from tiny_dataset import write_dataset

from roofseg.commands.tune import check_final
from roofseg.core.errors import UserError
from roofseg.recipe.parsing import parse_params

TUNING = "{sampler: grid, seed: 1, runs: 1, attempts: {small: {lr: [0.1, 0.2]}}}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with parameters, a dataset and tuning.yaml; the current folder."""
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("data/tiny"), {"a": "train", "b": "val", "c": "test"}, size=8)
    Path("studies").mkdir()
    for name, text in {
        "params.yaml": PARAMS,
        "studies/tuning.yaml": TUNING,
        "dvc.yaml": "stages: {train: {do: {deps: [patches/train]}}}",
    }.items():
        Path(name).write_text(text)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "start")
    return tmp_path


def roofseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "roofseg", *arguments],
        env={**environment(), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )


def test_uncommitted_changes_of_final_are_an_error(project: Path) -> None:
    """Otherwise an experiment would fail, but only after its training."""
    check_final(["small", "smaller"], parse_params(PARAMS))
    final = parse_params(PARAMS.replace("  small: null", "  small: 0123456789ab"))
    with pytest.raises(
        UserError, match=r"final\.small: found '0123456789ab', but None in the current commit"
    ):
        check_final(["smaller", "small"], final)
    check_final(["smaller"], final)  # no run needs the other attempt


@pytest.mark.parametrize("command", cases(["tune", "tuning-report"], whole=["tuning-report"]))
def test_a_mistake_is_one_line_and_status_2(project: Path, command: str) -> None:
    (project / "studies" / "tuning.yaml").write_text(TUNING.replace("lr", "lrr"))
    done = roofseg(command)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: studies/tuning.yaml: attempts.small.lrr: not a recipe key. Known: "
    )
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("jobs", cases(["0", "-1", "two"], whole=["-1", "two"]))
def test_jobs_are_a_positive_number(project: Path, jobs: str) -> None:
    done = roofseg("tune", f"--jobs={jobs}")
    assert done.returncode == 2
    assert f"--jobs: found {jobs!r}, expected a positive whole number" in done.stderr


@pytest.mark.parametrize(
    "name", ["patches/test/images/c.png", "data/tiny/imgs/a.tif", "data/tiny/msks/c.tif"]
)
def test_test_patches_and_tiles_are_sealed(project: Path, name: str) -> None:
    """Opening one fails the command, even if the error is caught."""
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    script = (
        "from contextlib import suppress\n"
        "from roofseg.core.guard import SealedTestError\n"
        "from pathlib import Path\n"
        "from roofseg.core.entry_point import entry_point\n"
        "with entry_point('roofseg tune', project=Path(), reads_tiles=False):\n"
        f"    with suppress(SealedTestError): open({name!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment(), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"roofseg tune opened {name}, which is sealed for it" in done.stderr
