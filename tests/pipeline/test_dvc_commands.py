"""The commands of DVC that people type: each ends well and says nothing of what was never made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from graph import ROOT
from project import Project

pytestmark = pytest.mark.whole

READING = [
    *("dvc status", "dvc data status", "dvc diff", "dvc dag", "dvc list ."),
    *("dvc checkout", "dvc push", "dvc fetch", "dvc pull", "dvc gc -w -f"),
    *("dvc metrics show", "dvc metrics diff", "dvc params diff", "dvc exp show --no-pager"),
    *("dvc plots show", "dvc plots diff"),
]
UP_TO_DATE = "Data and pipelines are up to date."
# What `dvc gc` says whenever it is called.
GC = "WARNING: This will remove all cache except items used in the workspace of the current repo.\n"


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A project of the user's own tiles that was run and committed, with a folder as its remote."""
    project = finished.copy(tmp_path / "a copy")
    project.run(f"dvc remote add -q -d store '{tmp_path / 'remote store'}'")
    project.commit("a remote")
    return project


def well(project: Project, command: str, folder: str = ".", prefix: str = "") -> str:
    """Run a command in a folder of the project: no error, no warning; return what it prints."""
    done = project.run(f"cd '{folder}' && {prefix} {command}")
    assert not re.search("warning|error|failed", done.stderr.replace(GC, ""), re.IGNORECASE), done
    return done.stdout


@pytest.mark.parametrize("folder", [".", "src/roofseg/core"])
def test_commands_that_read_end_well(project: Project, folder: str) -> None:
    """After a run and a commit, in the root and in a subfolder; nothing is left behind."""
    printed = {command: well(project, command, folder) for command in READING}
    assert printed["dvc status"].strip() == UP_TO_DATE
    assert project.run("git status --porcelain").stdout == ""


def test_experiments_of_every_kind_end_well(project: Project) -> None:
    """In the workspace, aside and queued; applied one after the other, branched and removed."""
    well(project, "dvc exp run -q -S lr=3e-4 -n here")
    assert well(project, "dvc status").strip() == UP_TO_DATE
    assert "metrics/small.json" in well(project, "dvc metrics diff")
    well(project, "dvc plots diff")
    well(project, "dvc exp run -q --temp -S lr=2e-4 -n aside")
    well(project, "dvc exp run -q --queue -S lr=1e-4 -n queued")
    well(project, "dvc exp run -q --run-all")
    listed = well(project, "dvc exp list --name-only").split()
    assert sorted(listed) == ["aside", "here", "queued"]
    for name, lr in (("here", "0.0003"), ("queued", "0.0001"), ("aside", "0.0002")):
        well(project, f"dvc exp apply {name}")
        assert well(project, "dvc status").strip() == UP_TO_DATE
        assert f"\nlr: {lr}\n" in (project.folder / "params.yaml").read_text()
    well(project, "dvc push")
    well(project, "dvc exp branch queued better")
    well(project, "dvc exp remove aside")
    assert sorted(well(project, "dvc exp list --name-only").split()) == ["here", "queued"]
    project.run("git checkout -q --force better")
    well(project, "dvc checkout")
    assert well(project, "dvc status").strip() == UP_TO_DATE


def test_commands_end_well_with_studies_in_force(project: Project) -> None:
    """DVC knows one study, then two, then none."""
    shutil.copy(ROOT / "tests" / "studies_tiny.yaml", project.folder / "studies" / "studies.yaml")
    for name in ("seeds", "budget"):
        project.roofseg(f"studies {name}")
        project.run("dvc repro")  # the leaderboard, with the spread over seeds
        project.commit(f"study {name}")
        for command in READING:
            well(project, command)
        assert well(project, "dvc status").strip() == UP_TO_DATE
    project.roofseg("studies none")
    assert well(project, "dvc status").strip() == UP_TO_DATE
    assert "studies" not in well(project, "dvc stage list --all")


CLONES = {
    "worktree": "git worktree add -q -b tree '{there}'",
    "detached": "git clone -q . '{there}' && git -C '{there}' checkout -q --detach",
    "shallow": "git clone -q --depth 1 'file://{here}' '{there}'",
}
NOBODY = "GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null LANG=C LC_ALL=C HOME='{home}'"


@pytest.mark.parametrize("kind", CLONES)
def test_clones_of_every_kind_pull_and_experiment(
    project: Project, tmp_path: Path, kind: str
) -> None:
    """Also without a git identity, where no commit is needed, and where ASCII is all there is."""
    there = tmp_path / "over there"
    (tmp_path / "home").mkdir()
    nobody = NOBODY.format(home=tmp_path / "home")
    project.run("dvc push -q")
    project.run(CLONES[kind].format(here=project.folder, there=there))
    clone = Project(there)
    well(clone, "dvc pull", prefix=nobody)
    for command in READING:
        well(clone, command, prefix=nobody)
    assert well(clone, "dvc status").strip() == UP_TO_DATE
    well(clone, "dvc exp run -q -S attempts.smaller.lr=1e-4 -n tried", prefix=nobody)
    well(clone, "dvc metrics diff", prefix=nobody)
    if kind != "worktree":  # which shares its configuration with the project
        refused = clone.run(f"{nobody} dvc exp apply tried", check=False)
        assert refused.returncode
        assert "Git user name and email must be configured" in refused.stderr
        clone.run("git config user.email test@example.org && git config user.name test")
    well(clone, "dvc exp apply tried")
    assert well(clone, "dvc status").strip() == UP_TO_DATE


def test_the_tables_of_metrics_are_narrow(project: Project) -> None:
    table = well(project, "dvc metrics show").splitlines()
    assert table[0].split() == ["Path", "test.f1", "test.iou", "val.f1", "val.iou"]
    assert [line.split()[0] for line in table[1:]] == ["metrics/small.json", "metrics/smaller.json"]
    assert max(map(len, table)) < 80
