"""The graph of stages: what each depends on, and who can reach the test split."""

from __future__ import annotations

import ast
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
from dvc.repo import Repo
from graph import ROOT, closure, imported
from ruamel.yaml import YAML

from roofseg.recipe.params import PatchSettings, SharedRecipe, parse_params
from roofseg.studies.declaration import parse_studies

CODE = [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]


@dataclass(frozen=True)
class Stage:
    name: str
    module: str  # as in `python -m stages.module`
    deps: frozenset[str]
    outs: frozenset[str]


def paths(entries: list, root: Path) -> frozenset[str]:
    local = (Path(entry.fs_path) for entry in entries if entry.fs_path)
    return frozenset(path.relative_to(root).as_posix() for path in local)


@pytest.fixture(scope="module", params=["sample", "inria", "austin512"])
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    """All stages of all dvc.yaml files under a profile, as DVC itself resolves them."""
    root = tmp_path_factory.mktemp(request.param).resolve()
    studies = {"studies/studies.yaml": f"studies/profiles/{request.param}/studies.yaml"}
    same = ("dvc.yaml", "data/dvc.yaml", "weights/dvc.yaml", "studies/dvc.yaml")
    for name, source in {**dict(zip(same, same, strict=True)), **studies}.items():
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / source, root / name)
    shutil.copy(ROOT / "profiles" / f"{request.param}.yaml", root / "params.yaml")
    with Repo.init(str(root), no_scm=True) as repo:
        return [
            Stage(
                name=stage.name,
                module=str(stage.cmd).partition("python -m ")[2].split()[0],
                deps=paths(stage.deps, root),
                outs=paths(stage.outs, root),
            )
            for stage in repo.index.stages
            if stage.cmd
        ]


@cache  # the runs of a study depend on the same files
def overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one lies below the other."""
    a, b = PurePosixPath(one), PurePosixPath(other)
    return a == b or a in b.parents or b in a.parents


def descendants(stages: list[Stage], path: str) -> set[str]:
    """The names of all stages that depend on ``path``, directly or through others' outputs."""
    reached: set[str] = set()
    waiting = {path}
    while waiting:
        current = waiting.pop()
        for stage in stages:
            if stage.name not in reached and any(overlap(current, dep) for dep in stage.deps):
                reached.add(stage.name)
                waiting |= stage.outs
    return reached


def test_only_evaluate_depends_on_the_test_patches(stages: list[Stage]) -> None:
    """Of all stages only evaluate@* depends on patches/test."""
    readers = {
        stage.name for stage in stages if any(overlap("patches/test", dep) for dep in stage.deps)
    }
    assert readers == {stage.name for stage in stages if stage.name.startswith("evaluate@")}
    assert readers


def test_nothing_before_evaluate_descends_from_the_test_patches(stages: list[Stage]) -> None:
    """Nothing else descends from patches/test but the leaderboard, through evaluate's outputs."""
    reached = descendants(stages, "patches/test")
    assert {name.split("@")[0] for name in reached} == {"evaluate", "leaderboard"}


def test_only_the_evaluate_stage_imports_sealed_test() -> None:
    """Only stages/evaluate.py imports the module that opens test."""
    sealed_test = ROOT / "src" / "roofseg" / "evaluation" / "sealed_test.py"
    importers = {file for file in CODE if sealed_test in imported(file)}
    assert importers == {ROOT / "stages" / "evaluate.py"}


def test_only_sealed_test_lifts_the_guard() -> None:
    """Only roofseg.evaluation.sealed_test lifts the guard."""
    lifters = {
        file.name
        for file in CODE
        for node in ast.walk(ast.parse(file.read_text()))
        if {"unsealed", "_guard"} & names_in(node)
    }
    assert lifters == {"guard.py", "sealed_test.py"}


def names_in(node: ast.AST) -> set[str]:
    """The names that a node itself uses or imports."""
    names = {getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "module", "") or ""}
    if isinstance(node, ast.Import | ast.ImportFrom):
        names |= {alias.name for alias in node.names}
    return names


def test_imports_are_absolute_and_plain() -> None:
    """No import is hidden from the proofs of imports (relative, or made at run time)."""
    for file in CODE:
        for node in ast.walk(ast.parse(file.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), file
            assert not {"runpy", "__import__", "import_module"} & names_in(node), file
            assert not (isinstance(node, ast.Name) and node.id in ("exec", "eval")), file


def modules(stages: list[Stage]) -> set[str]:
    """What stages run: the many runs of a study are of one."""
    return {stage.module for stage in stages}


def test_stages_list_every_file_that_they_import(stages: list[Stage]) -> None:
    """The deps of each stage are the project's files that it imports, no more and no less."""
    files = {each: ROOT / Path(*each.split(".")).with_suffix(".py") for each in modules(stages)}
    imports = {
        each: {path.relative_to(ROOT).as_posix() for path in closure(file)}
        for each, file in files.items()
    }
    for stage in stages:
        needed = imports[stage.module]
        missing = sorted(needed - stage.deps)
        assert not missing, f"{stage.name} imports {missing}, which its deps do not list"
        stale = sorted(dep for dep in stage.deps - needed if dep.endswith(".py"))
        assert not stale, f"{stage.name} lists {stale}, which it does not import"


def test_no_stage_of_the_pipeline_depends_on_a_study(stages: list[Stage]) -> None:
    """A plain `dvc repro` runs no study, and studies reach nothing of test."""
    of_studies = {stage.name for stage in stages if any("studies/" in out for out in stage.outs)}
    assert {"check_studies", "gather_budget", "budget@unet_imagenet-5-1"} <= of_studies
    for stage in stages:
        if stage.name not in of_studies:
            assert not [dep for dep in stage.deps if "studies" in dep], stage.name
        else:
            assert not [dep for dep in stage.deps if overlap("patches/test", dep)], stage.name
            assert "evaluate" not in stage.module, stage.name


def test_dvc_names_the_runs_of_a_study_as_the_project_does(
    stages: list[Stage], request: pytest.FixtureRequest
) -> None:
    """`gather_*` looks for the records of just those runs that the matrix makes."""
    profile = request.node.callspec.params["stages"]
    params = parse_params((ROOT / "profiles" / f"{profile}.yaml").read_text())
    studies = parse_studies((ROOT / f"studies/profiles/{profile}/studies.yaml").read_text(), params)
    for name, study in studies.named().items():
        runs = [stage for stage in stages if stage.name.startswith(f"{name}@")]
        assert [stage.name for stage in runs] == [f"{name}@{run}" for run in study.runs()]
        assert [out for stage in runs for out in stage.outs] == [
            f"metrics/studies/runs/{name}/{run}.json" for run in study.runs()
        ]


def test_no_stage_reads_another_datasets_tiles(stages: list[Stage]) -> None:
    """A plain `dvc repro` makes no tiles but those of its dataset: it downloads nothing unasked."""
    patches = next(stage for stage in stages if stage.name == "make_patches")
    (dataset,) = {dep.split("/")[1] for dep in patches.deps if dep.endswith("/imgs")}
    for stage in stages:
        read = {dep.split("/")[1] for dep in stage.deps if dep.startswith("data/")}
        assert read <= {dataset}, stage.name


def test_train_names_every_key_of_a_recipe() -> None:
    """The parameters of train@* in dvc.yaml are the keys of a recipe, no more and no less."""
    train = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["train"]["do"]
    keys = [*PatchSettings.model_fields, *SharedRecipe.model_fields, "attempts.${key}"]
    assert sorted(train["params"]) == sorted(keys)


def test_stages_are_short() -> None:
    """Stages are short."""
    long = {
        file.name
        for file in (ROOT / "stages").glob("*.py")
        if len(file.read_text().splitlines()) > 100
    }
    assert not long
