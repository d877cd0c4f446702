"""The proofs that training and tuning cannot reach test, with real DVC on tiny tiles.

`make prove-sealed` runs them beside those of the graph and the imports in test_graph, and prints
the first line of each one's docstring. The parts have tests of their own: core/test_guard,
results/test_ledger, cutting/test_leakage, evaluation/test_sealed_split.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from graph import ROOT
from pipeline.test_study_pipeline import write_all_lists
from processes import wait_until
from project import Project
from tiny_dataset import SPLIT, tile_pixels, write_dataset

from roofseg.baselines import best_constant
from roofseg.core.weights import write_weights
from roofseg.patches import Patch
from roofseg.recipe.params import Params
from roofseg.recipe.parsing import parse_params
from roofseg.results.ledger import read_looks
from roofseg.training.engine import train

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that is ready to train."""
    project = Project.create(tmp_path_factory.mktemp("cut") / "project")
    project.run("dvc repro make_patches weights/dvc.yaml:prior@scratch")
    project.commit("patches")
    return project


def outputs(folder: Path) -> dict[str, bytes]:
    """The files that training wrote, except its times."""
    files = [
        file
        for name in ("models", "metrics/attempts", "plots/training")
        for file in (folder / name).rglob("*")
        if file.is_file() and file.name != "times.json"
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# Blindness


def test_training_is_blind_to_test(cut: Project, tmp_path: Path) -> None:
    """Training without patches/test, with it, and with noise in its place gives the same bytes."""
    trained = {}
    for case in ("absent", "present", "noise"):
        project = cut.copy(tmp_path / case)
        test = project.folder / "patches" / "test"
        if case == "absent":
            shutil.rmtree(test)
        if case == "noise":
            for number, file in enumerate(file for file in test.rglob("*") if file.is_file()):
                file.unlink()  # it may be a link into DVC's cache
                file.write_bytes(np.random.default_rng(number).bytes(999))
        project.run("python -m stages.train --attempt small")
        trained[case] = outputs(project.folder)
    names = set(trained["absent"])
    assert {"models/small/model.safetensors", "metrics/attempts/small/training.json"} <= names
    assert any(name.startswith("metrics/attempts/small/live/") for name in names)
    assert trained["absent"] == trained["present"] == trained["noise"]


def test_cross_validation_is_blind_to_test(cut: Project, tmp_path: Path) -> None:
    """Folds and their runs give the same bytes without patches/test and with noise in its place."""
    project = cut.copy(tmp_path / "folds")
    shutil.copy(ROOT / "tests" / "studies_tiny.yaml", project.folder / "studies" / "studies.yaml")
    write_all_lists(project)
    project.run("dvc repro studies/dvc.yaml:recipe@small")
    made = {}
    for case in ("noise", "absent"):
        test = project.folder / "patches" / "test"
        if case == "absent":
            shutil.rmtree(test)
        else:
            for file in (file for file in test.rglob("*") if file.is_file()):
                file.unlink()  # it may be a link into DVC's cache
                file.write_bytes(b"noise")
        project.run("python -m stages.divide_folds folds --folds 3 --seed 1")
        project.run("python -m stages.fold_run folds small-1 --attempt small --fold 1")
        found = (project.folder / "studies").rglob("*")
        made[case] = {str(file): file.read_bytes() for file in found if file.is_file()}
        shutil.rmtree(project.folder / "studies" / "folds")
        shutil.rmtree(project.folder / ".state")
    assert any(name.endswith("small-1/model.safetensors") for name in made["noise"])
    assert any(name.endswith("studies/folds.csv") for name in made["noise"])
    assert made["noise"] == made["absent"]


# The guard

OPENINGS = {
    "a test patch": '(PATCHES / "test" / "crops.csv").read_text()',
    "a tile": 'open("data/tiny/imgs/d.tif", "rb")',
}


@pytest.mark.parametrize("what", OPENINGS)
def test_a_training_stage_that_opens_test_stops(cut: Project, tmp_path: Path, what: str) -> None:
    """A training stage changed to open test stops with SealedTestError."""
    project = cut.copy(tmp_path / "project")
    reading = '    params = read_params(Path("params.yaml"))\n'
    project.replace("stages/train.py", reading, f"{reading}    {OPENINGS[what]}\n")
    done = project.run("python -m stages.train --attempt small", check=False)
    assert done.returncode == 1
    assert "SealedTestError: train opened " in done.stderr
    assert not (project.folder / "models").exists()


def test_a_worker_that_opens_test_stops(cut: Project, tmp_path: Path) -> None:
    """A loader's worker process changed to open test stops training with SealedTestError."""
    project = cut.copy(tmp_path / "project")
    drawing = "        index, seed = draw\n"
    opening = '        open("patches/test/crops.csv")\n'
    project.replace("src/roofseg/training/data.py", drawing, drawing + opening)
    project.replace("params.yaml", "workers: 0", "workers: 1")
    done = project.run("python -m stages.train --attempt small", check=False)
    assert done.returncode == 1
    assert "SealedTestError: " in done.stderr
    assert "train (worker 0) opened patches/test/crops.csv" in done.stderr
    assert not (project.folder / "models").exists()


def test_evaluate_opens_test_through_sealed_split_alone(cut: Project, tmp_path: Path) -> None:
    """An evaluate stage changed to open test by itself stops too."""
    project = cut.copy(tmp_path / "project")
    asking = "    digest = trained_digest("
    project.replace("stages/evaluate.py", asking, f'    read_patches(PATCHES / "test")\n{asking}')
    done = project.run("python -m stages.evaluate --attempt small", check=False)
    assert "SealedTestError: evaluate opened " in done.stderr


# Leakage


def test_patches_of_two_splits_that_overlap_are_refused(cut: Project, tmp_path: Path) -> None:
    """make_patches fails where a patch of one split lies on ground of another's, naming both."""
    project = cut.copy(tmp_path / "project")
    tiles = project.folder / "data" / "tiny"
    before = outputs_of_patches(project)
    for kind in ("imgs", "msks"):
        shutil.copy(tiles / kind / "a.tif", tiles / kind / "twin.tif")
    with (tiles / "split.csv").open("a") as file:
        file.write("twin,test\n")
    done = project.run("python -m stages.make_patches", check=False)
    assert done.returncode == 2
    assert "a (train) and twin (test) are the same, pixel by pixel" in done.stderr
    assert outputs_of_patches(project) == before


def outputs_of_patches(project: Project) -> dict[str, bytes]:
    files = (project.folder / "patches").rglob("*")
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def test_patches_that_look_alike_are_named_in_a_warning(tmp_path: Path) -> None:
    """make_patches warns where patches of two splits look alike, naming both."""
    project = Project.create(tmp_path / "project")
    tiles = project.folder / "data" / "tiny"
    shutil.rmtree(tiles)
    write_dataset(tiles, SPLIT, size=96, suffix=".png", georeferenced=False)
    shutil.copy(tiles / "imgs" / "a.png", tiles / "imgs" / "d.png")
    shutil.copy(tiles / "msks" / "a.png", tiles / "msks" / "d.png")
    brighten(tiles / "imgs" / "d.png")
    done = project.run("python -m stages.make_patches")
    assert "warning: a (train) and d (test) look alike" in done.stderr
    assert done.stderr.count("look alike") == 1


def brighten(path: Path) -> None:
    import cv2

    cv2.imwrite(str(path), cv2.add(cv2.imread(str(path)), np.full(3, 10.0)))


# Negative control


def toy(count: int, start: int) -> list[Patch]:
    tiles = [tile_pixels(seed, 64) for seed in range(start, start + count)]
    return [Patch(f"{start + index}", *tile) for index, tile in enumerate(tiles)]


@pytest.fixture
def params(cut: Project) -> Params:
    text = (cut.folder / "params.yaml").read_text()
    settings = {"epochs: 2": "epochs: 5", "draws_per_epoch: 4": "draws_per_epoch: 40"}
    settings |= {"batch_size: 2": "batch_size: 4", "lr: 0.001": "lr: 0.003"}
    for old, new in settings.items():
        text = text.replace(old, new)
    return parse_params(text)


@pytest.mark.usefixtures("one_thread")
def test_shuffled_masks_teach_nothing(params: Params, tmp_path: Path) -> None:
    """An attempt trained on shuffled masks scores like a constant mask; on true ones, far above."""
    patches, val = toy(12, 0), toy(6, 100)
    write_weights(tmp_path / "scratch.safetensors", {})
    # Each image with the mask of the next one: no mask stays, and all are seen as often.
    masks = [patch.mask for patch in patches]
    shuffled = [
        Patch(patch.tile, patch.image, mask)
        for patch, mask in zip(patches, [*masks[1:], masks[0]], strict=True)
    ]
    constant = best_constant(val)["val"]["iou"]

    def best(name: str, train_patches: list[Patch]) -> float:
        trained = train(
            params.recipe("small"),
            attempt=name,
            train_patches=train_patches,
            val_patches=val,
            prior=tmp_path / "scratch.safetensors",
            machine=params.machine(),
            live=tmp_path / name,
            overlays=tmp_path / f"{name}-pictures",
            state=tmp_path / f"{name}-state",
        )
        assert trained
        return trained.best_val_iou

    assert best("shuffled", shuffled) <= constant + 0.05
    assert best("true", patches) > constant + 0.3


# Commits and looks


@pytest.fixture(scope="module")
def final(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose two attempts are trained, final, committed and scored on test once."""
    project = finished.copy(tmp_path_factory.mktemp("final") / "project")
    project.roofseg("finalize --all")
    project.commit("final recipes")
    project.run("dvc repro")
    project.commit("results")
    return project


@pytest.fixture
def project(final: Project, tmp_path: Path) -> Project:
    return final.copy(tmp_path / "project")


def scores(project: Project, attempt: str) -> dict[str, dict[str, float]]:
    path = project.folder / "metrics" / "attempts" / attempt / "scores.json"
    return json.loads(path.read_text())


def ledgers(project: Project) -> dict[str, list[str]]:
    """The kinds of lines in each attempt's ledger: looked or reproduced."""
    files = sorted((project.folder / "metrics" / "attempts").glob("*/test_looks.csv"))
    return {file.parent.name: [kind for kind, _ in read_looks(file)] for file in files}


ONE_LOOK = {"small": ["looked"], "smaller": ["looked"]}


def test_a_final_recipe_is_scored_on_test_and_recorded(project: Project) -> None:
    """A final, committed recipe is scored on test; the ledger lists it once, with its commit."""
    assert ledgers(project) == ONE_LOOK
    assert set(scores(project, "small")) == {"val", "test"}
    record = json.loads((project.folder / "models" / "small" / "recipe.json").read_text())
    ((_, look),) = read_looks(project.folder / "metrics/attempts/small/test_looks.csv")
    assert look.digest == record["digest"]
    assert look.training_inputs == record["training_inputs"]
    # The commit before that of the results: the one that made the recipe final.
    assert look.revision == project.run("git rev-parse HEAD~1").stdout.strip()
    board = json.loads((project.folder / "metrics" / "leaderboard.json").read_text())
    assert [row["looks"] for row in board["attempts"]] == [1, 1]
    project.run("dvc repro --force evaluate@small")
    assert ledgers(project) == ONE_LOOK


def test_tuning_never_opens_test(project: Project) -> None:
    """`dvc exp run -S lr=...` runs all stages, and leaves test sealed and each ledger as it is."""
    project.run("dvc exp run -q -S lr=1e-05 -S attempts.smaller.lr=1e-05")
    assert [set(scores(project, name)) for name in ("small", "smaller")] == [{"val"}, {"val"}]
    assert ledgers(project) == ONE_LOOK
    record = json.loads((project.folder / "models" / "smaller" / "recipe.json").read_text())
    assert record["recipe"]["lr"] == 1e-05
    shown = json.loads(project.run("dvc metrics diff --json").stdout)
    difference = shown["metrics/smaller.json"]["test.iou"]
    assert isinstance(difference["old"], float)
    assert difference["new"] == "sealed"
    assert "sealed" in (project.folder / "metrics" / "leaderboard.md").read_text()


def test_whole_tiles_of_test_open_for_a_final_recipe_alone(project: Project) -> None:
    """Whole tiles of test are scored where its patches are, without another look, else never."""
    project.replace("params.yaml", "evaluate_full_tiles: false", "evaluate_full_tiles: true")
    project.run("dvc repro evaluate@small")
    both = {"val", "test", "val_full_tiles", "test_full_tiles"}
    assert set(scores(project, "small")) == both
    assert ledgers(project) == ONE_LOOK
    project.commit("whole tiles")
    project.run("dvc exp run -q -S lr=1e-05 evaluate@small")
    assert set(scores(project, "small")) == {"val", "val_full_tiles"}
    assert ledgers(project) == ONE_LOOK


@pytest.mark.parametrize("where", ["", "--temp", "--queue"])
def test_a_setting_cannot_make_a_recipe_final(project: Project, where: str) -> None:
    """`dvc exp run -S final.x=...` is an error that says to commit: here, with --temp, queued."""
    record = json.loads((project.folder / "models" / "smaller" / "recipe.json").read_text())
    project.roofseg("finalize --undo smaller")
    project.commit("not final after all")
    project.run("dvc repro evaluate@smaller")
    project.commit("closed")
    # The very digest of the trained model: all that is missing is the commit.
    setting = f"-S final.smaller={record['digest']} evaluate@smaller"
    done = project.run(f"dvc exp run {where} --name forced {setting}", check=False)
    said = done.stdout + done.stderr
    if where == "--queue":
        project.run("dvc queue start")
        said = wait_for_log(project, "forced")
    assert "The test split opens only for a committed digest" in said
    assert ledgers(project) == ONE_LOOK
    refs = project.run("git for-each-ref --format='%(refname)' 'refs/exps/*/*/forced'").stdout
    assert refs == ""


def wait_for_log(project: Project, name: str) -> str:
    """The output of a queued experiment, once it has ended."""
    ended = re.compile(rf" {name} .*(Success|Failed)$", re.MULTILINE)
    wait_until(lambda: ended.search(project.run("dvc queue status").stdout))
    return project.run(f"dvc queue logs {name}").stdout


def test_the_same_recipe_trained_again_is_listed_and_not_counted(project: Project) -> None:
    """The same recipe trained by changed code is listed as reproduced, and not counted."""
    project.replace(
        "src/roofseg/training/loss.py", "return self.bce_weight", "return 0.999 * self.bce_weight"
    )
    project.commit("another loss")
    project.run("dvc repro evaluate@small leaderboard")
    assert ledgers(project)["small"] == ["looked", "reproduced"]
    board = json.loads((project.folder / "metrics" / "leaderboard.json").read_text())
    assert [row["looks"] for row in board["attempts"]] == [1, 1]


def test_a_tuned_recipe_made_final_is_one_more_look(project: Project) -> None:
    """Finalize, commit, `dvc repro` of a tuned recipe adds one look, and the table marks it."""
    project.run("dvc exp run -q -S attempts.smaller.lr=1e-05")
    project.run("make -s -o .venv/installed finalize ATTEMPTS=smaller")
    project.commit("tuned")
    project.run("dvc repro")
    assert ledgers(project) == {"small": ["looked"], "smaller": ["looked", "looked"]}
    assert set(scores(project, "smaller")) == {"val", "test"}
    said = "smaller: scored on test with more than one recipe, or on an earlier version"
    assert said in (project.folder / "metrics" / "leaderboard.md").read_text()


def test_a_model_of_another_recipe_is_an_error(project: Project) -> None:
    """A model that was not trained with the recipe in force is not scored."""
    project.replace("params.yaml", "    lr: 0.0003", "    lr: 0.0004")
    done = project.run("python -m stages.evaluate --attempt smaller", check=False)
    assert done.returncode == 2
    assert "models/smaller/recipe.json: the model was trained with the recipe" in done.stderr


def test_outside_git_test_stays_sealed(project: Project) -> None:
    """Outside git nothing is committed, so val alone is scored."""
    shutil.rmtree(project.folder / ".git")
    done = project.run("python -m stages.evaluate --attempt small")
    assert "small: test stays sealed: it opens only for a committed recipe" in done.stdout
    assert set(scores(project, "small")) == {"val"}
    assert ledgers(project) == ONE_LOOK


def test_a_copy_for_an_experiment_leaves_test_sealed(project: Project) -> None:
    """In a copy (`dvc exp run --temp`), where a look could get lost, test stays sealed for all."""
    project.run("dvc exp run -q --temp --name aside -f evaluate@small")
    ref = project.run("git for-each-ref --format='%(refname)' 'refs/exps/*/*/aside'").stdout.strip()
    shown = json.loads(project.run(f"git show {ref}:metrics/small.json").stdout)
    assert shown["test"] == {"iou": "sealed", "f1": "sealed"}
    assert ledgers(project) == ONE_LOOK


def test_a_ledger_put_back_to_an_older_state_gets_its_looks_back(project: Project) -> None:
    """A ledger put back to an older state (`dvc exp apply` does) regains its looks from git."""
    ledger = project.folder / "metrics/attempts/small/test_looks.csv"
    ledger.write_text(ledger.read_text().splitlines()[0] + "\n")
    project.commit("a ledger without its look")
    project.run("dvc repro evaluate@small")
    assert ledgers(project) == ONE_LOOK


def test_a_look_names_its_experiment(final: Project, tmp_path: Path) -> None:
    """A look within `dvc exp run` is recorded with the experiment's name."""
    project = final.copy(tmp_path / "project")
    project.replace(
        "src/roofseg/training/loss.py", "return self.bce_weight", "return 0.9 * self.bce_weight"
    )
    project.commit("another loss")
    project.run("dvc exp run -q --name bold-name evaluate@small")
    looks = read_looks(project.folder / "metrics/attempts/small/test_looks.csv")
    assert [(kind, look.experiment) for kind, look in looks] == [
        ("looked", ""),
        ("reproduced", "bold-name"),
    ]


def test_code_that_is_not_committed_cannot_open_test(project: Project) -> None:
    """Edited code of a final recipe is an error that says to commit, not a look."""
    project.replace(
        "src/roofseg/evaluation/evaluate.py", "FLOAT_FORMAT = ", "# Edited.\nFLOAT_FORMAT = "
    )
    done = project.run("dvc repro evaluate@small", check=False)
    assert "src/roofseg/evaluation/evaluate.py: not committed" in done.stderr
    assert ledgers(project) == ONE_LOOK


# A remote of its own

# Outputs that hold pictures of test: the file and the line that declare each of them.
SEALED_OUTPUTS = {
    "patches/test": ("dvc.yaml", "      - patches/test\n"),
    "patches/overview.png": ("dvc.yaml", "      - patches/overview.png\n"),
    "predictions/small": ("dvc.yaml", "        - predictions/${key}\n"),
    "report.html": ("dvc.yaml", "      - report.html\n"),
    "data/tiny/imgs": ("data/tiny/imgs.dvc", "  path: imgs\n"),
    "data/tiny/msks": ("data/tiny/msks.dvc", "  path: msks\n"),
}


def test_a_machine_that_trains_need_not_be_able_to_fetch_test(
    final: Project, tmp_path: Path
) -> None:
    """With a remote of its own for all that shows test, a machine trains that cannot fetch it."""
    project = final.copy(tmp_path / "project")
    for file, line in SEALED_OUTPUTS.values():
        indent = " " * (len(line) - len(line.lstrip()))
        sealed = f"{line[:-1]}:\n{indent}    remote: sealed\n"
        if file.endswith(".dvc"):
            sealed = f"{line}  remote: sealed\n"
        project.replace(file, f"\n{line}", f"\n{sealed}")  # the whole line: deps are indented more
    for name, default in (("open", "-d "), ("sealed", "")):
        project.run(f"dvc remote add {default}{name} '{tmp_path / name}'")
    project.run("dvc push -q")
    project.commit("remotes")
    # The training machine: nothing in its cache, and the sealed remote out of its reach.
    (tmp_path / "sealed").rename(tmp_path / "elsewhere")
    (tmp_path / "sealed").write_text("not for you")
    box = project.clone(tmp_path / "box")
    box.run("dvc pull -q patches/train patches/val weights/scratch.safetensors")
    box.replace("params.yaml", "    lr: 0.0003", "    lr: 0.0004")
    box.run("dvc repro --allow-missing train@smaller")
    assert (box.folder / "models" / "smaller" / "model.safetensors").exists()
    for path in SEALED_OUTPUTS:
        assert box.run(f"dvc pull {path}", check=False).returncode != 0
        assert not (box.folder / path).exists()
    # Where it can be reached, it comes.
    (tmp_path / "sealed").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "sealed")
    for path in SEALED_OUTPUTS:
        box.run(f"dvc pull -q {path}")
        assert (box.folder / path).exists()
