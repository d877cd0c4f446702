"""The worked examples of CONTRIBUTING.md can be followed to the letter."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from graph import ROOT
from intake_files import write_footprints, write_pairs
from project import Project
from tiers import cases
from worked_examples import BLOCK, edit, sample_on_tiny_tiles, steps

from roofseg.recipe.parsing import read_params
from roofseg.studies.declaration import read_studies
from roofseg.studies.in_force import stage_lists, write_lists

SECTION = re.compile(r"^## (Add .*)\n((?:(?!^## ).*\n)*)", re.MULTILINE)
EXAMPLES = {
    title: BLOCK.findall(text)
    for title, text in SECTION.findall((ROOT / "CONTRIBUTING.md").read_text())
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files that the examples edit and that declare stages, with the sample in force."""
    edited = [
        text.split()[1] for blocks in EXAMPLES.values() for kind, text in blocks if "diff" in kind
    ]
    stages = ["dvc.yaml", "data/dvc.yaml", "weights/dvc.yaml", "studies/dvc.yaml"]
    for name in {*edited, *stages, "studies/in_force.yaml"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "profiles" / "sample.yaml", tmp_path / "params.yaml")
    shutil.copy(ROOT / "studies/profiles/sample/studies.yaml", tmp_path / "studies")
    return tmp_path


def test_every_kind_of_addition_has_an_example() -> None:
    kinds = ("an attempt", "an architecture", "a prior", "a dataset", "to a study")
    assert [*EXAMPLES] == [f"Add {kind}" for kind in kinds]
    assert all("console" in dict(blocks) for blocks in EXAMPLES.values())


def make_edits(folder: Path, title: str) -> list[Path]:
    """Make all edits of an example, and return the files."""
    return [edit(folder, text) for kind, text in EXAMPLES[title] if kind == "diff"]


def stage_names(folder: Path) -> set[str]:
    with Repo.init(str(folder), no_scm=True) as repo:
        return {stage.name for stage in repo.index.stages if stage.cmd}


NEW_STAGES = {
    "Add an attempt": {"train@unet_imagenet_frozen", "evaluate@unet_imagenet_frozen"},
    "Add an architecture": {"train@unetplusplus_scratch", "evaluate@unetplusplus_scratch"},
    "Add a prior": {"prior@resnet18_aerial"},
    "Add a dataset": set(),
    "Add to a study": set(),
}


@pytest.mark.parametrize("title", cases(EXAMPLES, whole=[*EXAMPLES][1:]))
def test_edits_fit_the_files(files: Path, title: str) -> None:
    """Each example fits the files as they are; Python stays Python, and DVC has the new stages."""
    before = stage_names(files)
    shutil.rmtree(files / ".dvc")
    for path in make_edits(files, title):
        if path.suffix == ".py":
            compile(path.read_text(), path, "exec")
    assert stage_names(files) - before == NEW_STAGES[title]


def test_the_attempt_differs_in_what_the_text_says(files: Path) -> None:
    make_edits(files, "Add an attempt")
    params = read_params(files / "params.yaml")
    new, old = (params.recipe(name) for name in ("unet_imagenet_frozen", "unet_imagenet"))
    assert new == old.model_copy(update={"freeze_epochs": "all"})
    assert params.final["unet_imagenet_frozen"] is None


def test_the_study_has_the_new_runs(files: Path) -> None:
    make_edits(files, "Add to a study")
    params = read_params(files / "params.yaml")
    studies, params = read_studies(files / "studies" / "studies.yaml", params)
    lists = stage_lists(studies, params, ["seeds"], False)
    write_lists(files / "studies" / "in_force.yaml", lists)
    runs = {name for name in stage_names(files) if name.startswith("seeds@")}
    assert len(runs) == 4 * 5
    assert "seeds@unet_imagenet_dropout-5" in runs
    new, old = (params.recipe(name) for name in ("unet_imagenet_dropout", "unet_imagenet"))
    assert new == old.model_copy(update={"dropout": 0.6})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return sample_on_tiny_tiles(tmp_path, monkeypatch)


@pytest.mark.whole
@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_work(project: Project, title: str, tmp_path: Path) -> None:
    """Every command ends well, and prints the lines that the page shows ("..." are others)."""
    if title == "Add a prior":
        import segmentation_models_pytorch as smp  # seconds

        from roofseg.core.weights import write_weights

        encoder = smp.encoders.get_encoder("resnet18", weights=None)
        source = project.folder / "weights" / "resnet18_aerial.source.safetensors"
        write_weights(source, encoder.state_dict())
    if title == "Add a dataset":
        images, _ = write_pairs(tmp_path)
        (tmp_path / "home" / "oslo").mkdir(parents=True)
        images.rename(tmp_path / "home" / "oslo" / "ortho")
        write_footprints(tmp_path / "home" / "oslo" / "buildings.gpkg")
    for kind, text in EXAMPLES[title]:
        if kind == "diff":
            edit(project.folder, text)
            continue
        for command, printed in steps(text):
            done = project.run(command)
            found = done.stdout.splitlines()
            missing = [line for line in printed if line != "..." and line not in found]
            assert not missing, f"{command} did not print {missing}:\n{done.stdout}"
