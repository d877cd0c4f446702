"""The graph of stages: what each depends on, and who can reach the test split."""

from __future__ import annotations

import ast
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from graph import ROOT, closure, imported
from ruamel.yaml import YAML

from roofseg.recipe.params import Params, PatchSettings, SharedRecipe
from roofseg.recipe.parsing import read_params
from roofseg.studies.declaration import STUDY_NAMES, Studies, read_studies
from roofseg.studies.in_force import stage_lists, write_lists

CODE = [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]


# A prior of each kind that the profiles have none of, so that its stage is tested too.
PRIORS = {
    "hub": "{of_the_hub: {encoder: resnet50}}",
    "files": "{of_a_file: {file: weights.pth}}",
    "models": "{of_a_model: {model: models/unet_imagenet}}",
}


@dataclass(frozen=True)
class Stage:
    name: str
    module: str  # as in `python -m stages.module`
    listed: tuple[str, ...]  # dependencies in the order of dvc.yaml
    outs: frozenset[str]

    @property
    def deps(self) -> frozenset[str]:
        return frozenset(self.listed)


def paths(entries: list, root: Path) -> tuple[str, ...]:
    local = (
        Path(entry.fs_path)
        for entry in entries
        if entry.fs_path and not isinstance(entry, ParamsDependency)
    )
    return tuple(path.relative_to(root).as_posix() for path in local)


@pytest.fixture(scope="module", params=["sample", "inria", "austin512"])
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    """All stages of all dvc.yaml files under a profile, as DVC itself resolves them."""
    root = tmp_path_factory.mktemp(request.param).resolve()
    for name in ("dvc.yaml", "data/dvc.yaml", "weights/dvc.yaml", "studies/dvc.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    profile = (ROOT / "profiles" / f"{request.param}.yaml").read_text()
    for kind, prior in PRIORS.items():
        assert f"  {kind}: {{}}" in profile
        profile = profile.replace(f"  {kind}: {{}}", f"  {kind}: {prior}")
    (root / "params.yaml").write_text(profile)
    studies, params = declared(request.param)
    write_lists(root / "studies/in_force.yaml", stage_lists(studies, params, STUDY_NAMES, True))
    with Repo.init(str(root), no_scm=True) as repo:
        return [
            Stage(
                name=stage.name,
                module=str(stage.cmd).partition("python -m ")[2].split()[0],
                listed=paths(stage.deps, root),
                outs=frozenset(paths(stage.outs, root)),
            )
            for stage in repo.index.stages
            if stage.cmd
        ]


def declared(profile: str) -> tuple[Studies, Params]:
    """The studies of a profile, and its parameters with the attempts that only studies train."""
    params = read_params(ROOT / "profiles" / f"{profile}.yaml")
    return read_studies(ROOT / "studies" / "profiles" / profile / "studies.yaml", params)


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


def test_only_the_evaluate_stage_imports_sealed_split() -> None:
    """Only stages/evaluate.py imports the module that opens test."""
    sealed_split = ROOT / "src" / "roofseg" / "evaluation" / "sealed_split.py"
    importers = {file for file in CODE if sealed_split in imported(file)}
    assert importers == {ROOT / "stages" / "evaluate.py"}


def test_only_sealed_split_lifts_the_guard() -> None:
    """Only roofseg.evaluation.sealed_split lifts the guard."""
    lifters = {
        file.name
        for file in CODE
        for node in ast.walk(ast.parse(file.read_text()))
        if {"unsealed", "_guard"} & names_in(node)
    }
    assert lifters == {"guard.py", "sealed_split.py"}


def names_in(node: ast.AST) -> set[str]:
    """The names that a node itself uses or imports."""
    names = {getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "module", "") or ""}
    if isinstance(node, ast.Import | ast.ImportFrom):
        names |= {alias.name for alias in node.names}
    return names


# Words for the current folder, the arguments, the environment, and other programs, which run in the
# current folder.
SURROUNDINGS = {"cwd", "getcwd", "chdir", "argv", "environ", "getenv", "subprocess"}
KNOW_THEIR_SURROUNDINGS = {
    "cli.py": "the project of a command is the current folder",
    "evaluation/sealed_split.py": "asks git for the committed params.yaml, code and ledger",
    "tuning/dvc_queue.py": "runs dvc and git, which work on the project in the current folder",
    "training/augment.py": "sets a variable that albumentations reads when it is imported",
    "mapping/ray_workers.py": "sets variables that Ray reads when it is imported",
}
"""The modules outside commands/ that may use them, with the reason."""


def test_only_stages_and_commands_know_the_current_folder() -> None:
    """The library knows no folder but those it is given, except in modules that say why."""
    library = ROOT / "src" / "roofseg"
    found = {
        file.relative_to(library).as_posix()
        for file in library.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if SURROUNDINGS & names_in(node) or names_a_relative_path(node)
    }
    assert {name for name in found if not name.startswith("commands/")} == set(
        KNOW_THEIR_SURROUNDINGS
    )


def names_a_relative_path(node: ast.AST) -> bool:
    """Whether a node is `Path()` or `Path("...")`."""
    match node:
        case ast.Call(func=ast.Name("Path"), args=[] | [ast.Constant(), *_]):
            return True
    return False


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


def is_code(dep: str) -> bool:
    return dep.startswith(("src/", "stages/"))


def test_stages_list_the_code_that_they_import(stages: list[Stage]) -> None:
    """Each stage lists every file and folder of code that it imports, and no other."""
    imports = {
        each: {
            path.relative_to(ROOT).as_posix()
            for path in closure(ROOT / Path(*each.split(".")).with_suffix(".py"))
            if path.stat().st_size  # an empty __init__.py does nothing
        }
        for each in modules(stages)
    }
    for stage in stages:
        needed, listed = imports[stage.module], set(filter(is_code, stage.deps))
        missing = sorted(file for file in needed if not any(overlap(file, dep) for dep in listed))
        assert not missing, f"{stage.name} imports {missing}, which its deps do not list"
        unused = sorted(dep for dep in listed if not any(overlap(file, dep) for file in needed))
        assert not unused, f"{stage.name} lists {unused}, which it does not import"


def test_stages_list_their_code_in_one_order(stages: list[Stage]) -> None:
    """Data first, then code: entry points, then the library in the order of its imports."""
    order = [
        *("stages/", "src/roofseg/core", "src/roofseg/recipe", "src/roofseg/tiles"),
        *("src/roofseg/patches.py", "src/roofseg/models", "src/roofseg/metrics.py"),
        *("src/roofseg/baselines.py", "src/roofseg/drawing.py", "src/roofseg/cutting"),
        *("src/roofseg/training", "src/roofseg/inference", "src/roofseg/sliding_window"),
        *("src/roofseg/results", "src/roofseg/evaluation", "src/roofseg/pages"),
        *("src/roofseg/report", "src/roofseg/studies", "src/roofseg/tuning"),
        *("src/roofseg/priors", "src/roofseg/inria", "src/roofseg/synthetic"),
        "src/roofseg/intake",
    ]
    for stage in stages:
        places = [
            next((at for at, start in enumerate(order) if dep.startswith(start)), -1)
            for dep in stage.listed
        ]
        assert places == sorted(places), f"{stage.name}: {stage.listed}"


def test_no_stage_of_the_pipeline_depends_on_a_study(stages: list[Stage]) -> None:
    """A plain `dvc repro` runs no study, and studies reach nothing of test."""
    of_studies = {stage.name for stage in stages if any("studies/" in out for out in stage.outs)}
    assert {"recipe@unet_imagenet", "gather@budget", "budget@unet_imagenet-5-1"} <= of_studies
    assert {"divide@folds", "folds@unet_imagenet-5", "gather@folds"} <= of_studies
    for stage in stages:
        if stage.name not in of_studies:
            assert not [dep for dep in stage.deps if "studies" in dep], stage.name
        else:
            assert not [dep for dep in stage.deps if overlap("patches/test", dep)], stage.name
            assert "evaluate" not in stage.module, stage.name


def test_no_stage_makes_the_spread_over_seeds(stages: list[Stage]) -> None:
    """The leaderboard alone depends on it; as an output it would make `dvc repro` run the study."""
    file = "metrics/seed_spread.csv"
    assert {stage.name for stage in stages if file in stage.deps} == {"leaderboard"}
    assert not [stage.name for stage in stages if any(overlap(file, out) for out in stage.outs)]


def test_dvc_names_the_runs_of_a_study_as_the_project_does(
    stages: list[Stage], request: pytest.FixtureRequest
) -> None:
    """`gather@*` looks for the records of just those runs that the matrix makes."""
    profile = request.node.callspec.params["stages"]
    studies, _ = declared(profile)
    for name, study in studies.by_name().items():
        runs = [stage for stage in stages if stage.name.startswith(f"{name}@")]
        assert [stage.name for stage in runs] == [f"{name}@{run}" for run in study.runs()]
        for stage, run in zip(runs, study.runs(), strict=True):
            assert f"metrics/studies/runs/{name}/{run}.json" in stage.outs


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
