"""`roofseg studies`: what it checks, and which stages it has DVC run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graph import ROOT
from project import PARAMS, SPLIT, environment
from tiny_dataset import write_dataset

from roofseg.core.errors import UserError
from roofseg.studies.in_force import read_lists

Roofseg = Callable[..., None]


# Stages with the names of those in studies/dvc.yaml, which run in a moment.
STAGES = """\
vars: [in_force.yaml]
stages:
  recipe:
    foreach: ${recipes}
    do:
      cmd: python -c "print('written')"
  gather:
    foreach: ${gathered}
    do:
      cmd: python -c "print('gathered')"
  page:
    foreach: ${pages}
    do:
      cmd: python -c "print('reported')"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with tiny studies, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()
    Path("params.yaml").write_text(PARAMS)
    write_dataset(Path("data/tiny"), SPLIT, size=8)
    Path("studies").mkdir()
    Path("studies/dvc.yaml").write_text(STAGES)
    shutil.copy(ROOT / "tests" / "studies_tiny.yaml", "studies/studies.yaml")
    shutil.copy(ROOT / "studies" / "in_force.yaml", "studies")
    return tmp_path


@pytest.mark.whole
def test_dvc_runs_one_study_all_studies_or_the_page(project: Path) -> None:
    """Without `python` on PATH: stages find the Python that runs the command."""
    init = [sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"]
    subprocess.run(init, check=True, env=environment())
    Path("metrics/studies").mkdir(parents=True)
    recipes = [f"recipe@{name}" for name in ("small", "cold")]
    gathers = [f"gather@{name}" for name in ("budget", "seeds", "augmentation", "folds")]
    for name, stages in (
        (["seeds"], ["recipe@small", "gather@seeds"]),
        (["report"], ["page@report"]),
        ([], [*recipes, *gathers, "page@report"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "roofseg", "studies", *name],
            env={**environment(), "PYTHONPATH": str(ROOT / "src"), "PATH": os.defpath},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        ran = re.findall(r"Running stage 'studies/dvc\.yaml:(.*)'", done.stdout)
        assert sorted(ran) == sorted(stages)


def test_dvc_has_stages_only_for_what_was_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, roofseg: Roofseg
) -> None:
    # The command becomes `dvc repro`; what that does is tested above.
    monkeypatch.setattr(os, "execve", lambda *_: None)
    empty = Path("studies/in_force.yaml").read_text()

    def lists(*name: str) -> dict[str, Any]:
        roofseg("studies", *name)
        return read_lists(Path("studies/in_force.yaml"))

    assert lists("seeds")["gathered"] == ["seeds"]
    both = lists("budget")
    assert (both["gathered"], both["pages"]) == (["budget", "seeds"], [])
    assert both["recipes"] == {"small": "scratch"}
    assert both["studies"]["budget"] == {"attempt": ["small"], "tiles": [1, 2], "seed": [1]}
    assert both["studies"]["augmentation"] == {"attempt": [], "augmentation": [], "seed": []}
    Path("metrics/studies").mkdir(parents=True)
    assert lists("report") == {**both, "pages": ["report"]}
    assert (both["divisions"], both["studies"]["folds"]) == ({}, {"attempt": [], "fold": []})
    every = lists()
    assert every["gathered"] == ["budget", "seeds", "augmentation", "folds"]
    assert every["divisions"] == {"folds": {"folds": 3, "seed": 1}}
    assert every["studies"]["folds"] == {"attempt": ["small"], "fold": [1, 2, 3]}
    lists("none")
    assert Path("studies/in_force.yaml").read_text() == empty


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("a: 1", "gathered: found None"),
        ("gathered: [seedz]", r"gathered: found \['seedz'\]; expected a list with any of budget"),
    ],
)
def test_a_damaged_list_of_the_studies_in_force_is_named_and_made_anew(
    project: Path, roofseg: Roofseg, text: str | None, says: str
) -> None:
    path = Path("studies/in_force.yaml")
    empty = path.read_text()
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(
        UserError, match=rf"^studies/in_force\.yaml: {says}.*`roofseg studies none`"
    ):
        roofseg("studies", "seeds")
    Path("studies/studies.yaml").unlink()  # which may fit another profile
    roofseg("studies", "none")
    assert path.read_text() == empty


def test_a_page_of_nothing_is_refused(project: Path, roofseg: Roofseg) -> None:
    with pytest.raises(UserError, match=r"^metrics/studies: no such folder.*studies seeds`"):
        roofseg("studies", "report")
    assert "report" not in Path("studies/in_force.yaml").read_text().splitlines()[4]


@pytest.mark.whole
def test_the_exit_status_is_that_of_dvc(project: Path) -> None:
    init = [sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"]
    subprocess.run(init, check=True, env=environment())
    Path("metrics/studies").mkdir(parents=True)
    Path("studies/dvc.yaml").write_text(STAGES.replace("print('reported')", "exit(3)"))
    done = subprocess.run(
        [sys.executable, "-m", "roofseg", "studies", "report"],
        env={**environment(), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
    )
    assert done.returncode == 255


def test_errors_in_studies_yaml_are_found_before_dvc_runs(project: Path, roofseg: Roofseg) -> None:
    """Errors in other studies count too, and are found before DVC reads the file itself."""
    text = Path("studies/studies.yaml").read_text()
    Path("studies/studies.yaml").write_text(text.replace("    tiles:\n      - 1\n      - 2\n", ""))
    with pytest.raises(UserError, match=r"^studies/studies\.yaml: studies\.budget\.tiles: missing"):
        roofseg("studies", "seeds")
    Path("studies/studies.yaml").write_text(
        text.replace("      - 2\n    seeds", "      - 3\n    seeds")
    )
    with pytest.raises(UserError, match=r"budget\.tiles: found 3; expected at most 2"):
        roofseg("studies", "seeds")
    Path("studies/studies.yaml").unlink()
    with pytest.raises(UserError, match=r"studies\.yaml: cannot be read .*studies/profiles/"):
        roofseg("studies", "seeds")


def test_an_unknown_study_is_named(
    project: Path, roofseg: Roofseg, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        roofseg("studies", "seed")
    assert "invalid choice: 'seed'" in capsys.readouterr().err


def test_the_code_of_studies_never_imports_tuning() -> None:
    for file in (ROOT / "src" / "roofseg" / "studies").rglob("*.py"):
        assert "roofseg.tuning" not in file.read_text(), file
