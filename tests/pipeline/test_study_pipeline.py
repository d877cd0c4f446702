"""The studies as a pipeline of their own, with real DVC."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from graph import ROOT
from project import Project

from roofseg.recipe.parsing import parse_params, read_params
from roofseg.studies.declaration import SOURCE, STUDY_NAMES, parse_studies, read_studies
from roofseg.studies.in_force import stage_lists, write_lists

TINY = ROOT / "tests" / "studies_tiny.yaml"
RUNS = [
    *("augmentation@cold-heavy-1", "augmentation@cold-light-1"),
    *("augmentation@small-heavy-1", "augmentation@small-light-1"),
    *("budget@small-1-1", "budget@small-2-1"),
    *("folds@small-1", "folds@small-2", "folds@small-3", "seeds@small-1", "seeds@small-2"),
]


BUDGET = "attempts:\n      - small\n    tiles"


def write_all_lists(project: Project) -> None:
    """Put all studies in force, as `roofseg studies` does before it runs them."""
    params = read_params(project.folder / "params.yaml")
    studies, params = read_studies(project.folder / SOURCE, params)
    lists = stage_lists(studies, params, STUDY_NAMES, True)
    write_lists(project.folder / "studies" / "in_force.yaml", lists)


def ran(output: str) -> list[str]:
    """The stages of studies/dvc.yaml that DVC ran."""
    return re.findall(r"Running stage 'studies/dvc\.yaml:([^']+)'", output)


@pytest.mark.whole
def test_studies_run_apart_and_rerun_only_what_changed(tmp_path: Path) -> None:
    """A plain `dvc repro` runs no study, and a change repeats only the runs that it affects."""
    project = Project.create(tmp_path / "project")
    studies = project.folder / "studies" / "studies.yaml"
    shutil.copy(TINY, studies)
    project.commit("tiny studies")
    results = project.folder / "metrics" / "studies"

    assert ran(project.run("dvc repro").stdout) == []
    assert not results.exists()

    first = ran(project.roofseg("studies").stdout)
    assert sorted(name for name in first if name in RUNS) == RUNS
    for name in STUDY_NAMES:
        assert "# Study: " in (results / name / "report.md").read_text()
        assert (project.folder / "plots" / "studies" / f"{name}.png").is_file()
    assert "up to date" in project.run("dvc repro studies/dvc.yaml").stdout
    # The leaderboard shows the spread over seeds, and nothing else is made again.
    shown = project.run("dvc repro").stdout
    assert re.findall(r"Running stage '([^']+)'", shown) == ["leaderboard"]
    assert "measured with epochs 1" in (project.folder / "metrics/leaderboard.md").read_text()
    assert "up to date" in project.run("dvc status").stdout
    project.commit("studied")
    kept = project.run("git ls-files metrics/studies studies/recipes plots/studies").stdout
    assert "metrics/studies/runs/budget/small-1-1.json" in kept
    assert "recipes" not in kept  # which are DVC's, as figures are
    assert ".png" not in kept
    assert "metrics/studies/folds/tiles.csv" in kept
    # The models of folds are in DVC's cache, and predict as others do.
    assert project.run("git ls-files studies/folds").stdout == ""
    project.run("rm -r studies/folds/small-2 && dvc checkout studies/dvc.yaml:folds@small-2")
    project.roofseg("predict data/tiny/imgs/d.tif --model studies/folds/small-2 --out maps")
    assert [*(project.folder / "maps").glob("*.tif")]

    # Another seed adds one run.
    record = (results / "runs/seeds/small-2.json").read_bytes()
    seeds = "seeds:\n    attempts:\n      - small\n    seeds:\n      - 1\n"
    project.replace("studies/studies.yaml", seeds, f"{seeds}      - 3\n")
    again = ran(project.roofseg("studies").stdout)
    assert [name for name in again if "@small-" in name] == ["seeds@small-3"]
    assert {name for name in again if name.startswith("gather")} == {"gather@seeds"}

    # A change of an attempt that no study trains repeats nothing; a change of a study's own
    # recipe repeats its runs.
    project.replace("params.yaml", "    lr: 0.0003\n", "    lr: 0.0004\n")
    assert not set(ran(project.run("dvc repro studies/dvc.yaml").stdout)) & set(RUNS)
    project.replace("studies/studies.yaml", "      epochs: 1\n  seeds", "      epochs: 2\n  seeds")
    again = ran(project.roofseg("studies").stdout)
    assert sorted(name for name in again if name in RUNS) == RUNS[4:6]

    # Another division repeats all runs of folds.
    project.replace("studies/studies.yaml", "folds: 3\n    seed: 1", "folds: 3\n    seed: 3")
    again = ran(project.roofseg("studies folds").stdout)
    assert sorted(name for name in again if name in RUNS) == [f"folds@small-{n}" for n in (1, 2, 3)]

    # A run gives the same bytes again, without test patches.
    shutil.rmtree(project.folder / "patches" / "test")
    project.run("dvc repro --force --single-item studies/dvc.yaml:seeds@small-2")
    assert (results / "runs/seeds/small-2.json").read_bytes() == record


@pytest.mark.whole
def test_an_error_is_found_before_anything_trains(tmp_path: Path) -> None:
    """An unknown attempt is an error of the first stage, not of DVC."""
    project = Project.create(tmp_path / "project")
    shutil.copy(TINY, project.folder / "studies" / "studies.yaml")
    write_all_lists(project)
    project.replace("studies/studies.yaml", BUDGET, BUDGET.replace("small", "tall"))
    done = project.run("dvc repro studies/dvc.yaml:gather@budget", check=False)
    assert done.returncode
    assert "error: studies/studies.yaml: studies.budget.attempts: found 'tall'" in done.stderr
    assert [name.split("@")[0] for name in ran(done.stdout)] == ["recipe"]


@pytest.mark.whole
def test_too_few_tiles_for_the_folds_are_found_before_anything_trains(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    shutil.copy(TINY, project.folder / "studies" / "studies.yaml")
    project.replace("studies/studies.yaml", "folds: 3", "folds: 4")
    done = project.run("PYTHONPATH=src python -m roofseg studies folds", check=False)
    assert done.returncode
    assert "studies.folds.folds: found 4, but the 3 tiles of train and val form" in done.stderr
    assert {name.split("@")[0] for name in ran(done.stdout)} == {"recipe", "divide"}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDY_NAMES)
def test_the_studies_of_the_sample_run_at_their_size(name: str, tmp_path: Path) -> None:
    """With the sample's tiles, recipe and priors, as `roofseg studies NAME` in a fresh clone."""
    project = Project.create(tmp_path / "project")
    shutil.copy(ROOT / "profiles" / "sample.yaml", project.folder / "params.yaml")
    shutil.copytree(
        ROOT / "studies" / "profiles" / "sample", project.folder / "studies", dirs_exist_ok=True
    )
    project.roofseg(f"studies {name}")
    declared = parse_params((project.folder / "params.yaml").read_text())
    study = parse_studies((project.folder / SOURCE).read_text(), declared).study(name)
    runs = pd.read_csv(project.folder / "metrics" / "studies" / name / "runs.csv")
    assert len(runs) == len(study.runs())
    assert runs.failure.isna().all()
    ious = runs.iou if name == "folds" else runs.val_iou
    assert ious.max() > 0.3  # something was learnt: a mask that is all building has 0.227
