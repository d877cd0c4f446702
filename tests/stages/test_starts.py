"""Stages that are not run as DVC runs them: as a script, elsewhere, or with another Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from graph import ROOT
from tiers import cases

STAGES = sorted(
    path.stem
    for path in (ROOT / "stages").glob("*.py")
    if "\n    run(main" in path.read_text(encoding="utf-8")
)


def python(*command: str | Path, cwd: Path, by: str | Path = sys.executable, path: str = "") -> str:
    """Run Python in ``cwd``; returns its exit status, and its errors or its last line."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [by, *command],
        cwd=cwd,
        env={**environment, **({"PYTHONPATH": path} if path else {})},
        capture_output=True,
        text=True,
    )
    return f"{done.returncode}: {done.stderr or done.stdout.splitlines()[-1]}"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without packages."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this checkout's code and no params.yaml."""
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / "stages", folder / "stages")
    (folder / "src").symlink_to(ROOT / "src")
    (folder / "dvc.yaml").touch()
    return folder


def test_all_stages_are_tested() -> None:
    others = {"__init__.py", "_studies.py", "_study_runs.py", "_training.py", "roofseg.py"}
    assert {path.name for path in (ROOT / "stages").glob("*.py")} - others == {
        f"{name}.py" for name in STAGES
    }


@pytest.mark.parametrize("place", cases(["", "stages", ".."], whole=["", "stages"]))
def test_a_stage_runs_as_a_script_from_any_folder(place: str, project: Path) -> None:
    script = project / "stages" / "check_params.py"
    done = python(os.path.relpath(script, project / place), cwd=project / place)
    assert done.startswith("2: error: params.yaml: cannot be read")
    assert done.count("\n") == 1
    assert "unrecognized arguments: --no such" in python(
        project / "stages" / "train.py", "--attempt", "a", "--no such", cwd=project / place
    )


def test_a_stage_runs_as_a_script_in_its_own_checkout_only(project: Path) -> None:
    """Another program that finds the folder on its path is told why `roofseg` is not there."""
    for command in (("-c", "import roofseg"), ("roofseg.py",)):
        done = python(*command, cwd=project / "stages")
        assert done.startswith("1: Traceback")
        assert done.endswith(f"is no folder of packages; run Python in {project}\n")


@pytest.mark.parametrize("name", cases(STAGES, whole=set(STAGES) - {"train", "study_report"}))
def test_a_python_without_packages_is_told_in_one_line(
    name: str, bare: Path, project: Path
) -> None:
    ways = [(project / "stages" / f"{name}.py",), ("-m", f"stages.{name}")]
    for command in ways:
        done = python(*command, cwd=project, by=bare)
        if name == "make_prior":  # needs packages only after its arguments
            assert done.startswith("2: error: the following arguments are required: name")
        else:
            assert done.startswith(f"2: error: {bare} lacks the package ")
            assert f"`cd {project} && source .venv/bin/activate`" in done
        assert done.count("\n") == 1


@pytest.mark.parametrize("name", cases(STAGES, whole=set(STAGES) - {"sample_tiles"}))
def test_another_folder_is_told_in_one_line_and_nothing_is_written(
    name: str, project: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = python("-m", f"stages.{name}", cwd=elsewhere, path=str(project))
    assert done.startswith(f"2: error: {elsewhere}: no dvc.yaml here. Run stages in the root")
    assert f"`cd {project}`, then `dvc repro`, or `python -m stages.{name}`." in done
    assert done.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


def test_a_missing_module_of_the_project_is_a_bug(project: Path) -> None:
    stage = project / "stages" / "train.py"
    stage.write_text("import roofseg.nosuch\n")
    done = python("-m", "stages.train", cwd=project)
    assert done.startswith("1: Traceback")
    assert done.endswith("ModuleNotFoundError: No module named 'roofseg.nosuch'\n")
