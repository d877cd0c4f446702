"""The whole pipeline with real DVC, on tiny tiles, in a repository of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from graph import ROOT
from project import TABLES, TIMES, Project

from roofseg.recipe.parsing import parse_params

UP_TO_DATE = "Data and pipelines are up to date."


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A clone of it with all data at hand (through the shared cache)."""
    clone = finished.clone(tmp_path / "clone")
    clone.run(f"dvc cache dir --local '{finished.folder / '.dvc' / 'cache'}'")
    clone.run("dvc checkout -q")
    return clone


def would_train(project: Project) -> set[str]:
    """The attempts that `dvc repro` would train."""
    # Exit status 255 where a new attempt's model is not there yet: the dry run makes nothing.
    shown = project.run("dvc repro --dry", check=False).stdout
    return set(re.findall(r"Running stage 'train@(\w+)'", shown))


def test_tiles_become_a_leaderboard(finished: Project) -> None:
    board = pd.read_csv(finished.folder / "metrics" / "leaderboard.csv")
    assert sorted(board.attempt) == ["small", "smaller"]
    assert set(board.test_iou) == {"sealed"}
    assert board.val_iou.between(0, 1).all()
    for name in ("patches/overview.png", "report.html"):
        assert (finished.folder / name).stat().st_size > 1000
    report = (finished.folder / "report.html").read_text()
    assert "the test split was not opened" in report


def test_every_attempt_has_a_model_card_in_git(finished: Project) -> None:
    scores = "metrics/attempts/small/scores.json"
    iou = json.loads((finished.folder / scores).read_text())["val"]["iou"]
    card = finished.run("git show HEAD:metrics/attempts/small/card.md").stdout
    assert re.search(rf"\| IoU, mean over tiles +\| {iou:.3f} +\| sealed +\|", card)
    record = json.loads((finished.folder / "models" / "small" / "recipe.json").read_text())
    assert record["digest"] in card
    # Its terms are those in the dataset's LICENSE.md, which is a dependency.
    assert "**Data** `tiny` (CC0-1.0): Random pixels." in card
    assert "data/tiny/LICENSE.md" in (finished.folder / "dvc.lock").read_text()


def test_a_second_repro_has_nothing_to_do(project: Project) -> None:
    assert UP_TO_DATE in project.run("dvc repro").stdout
    assert project.run("git status --porcelain").stdout == ""


def test_a_fresh_clone_is_current(finished: Project, tmp_path: Path) -> None:
    clone = finished.clone(tmp_path / "clone")
    assert UP_TO_DATE in clone.run("dvc repro --dry --allow-missing").stdout


def test_the_committed_results_are_current(tmp_path: Path) -> None:
    """dvc.lock in the last commit of this checkout belongs to its code and parameters."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = Project(ROOT).clone(tmp_path / "clone")
    assert UP_TO_DATE in clone.run("dvc repro --dry --allow-missing").stdout


TRAIN, EVALUATE = {"train@small", "train@smaller"}, {"evaluate@small", "evaluate@smaller"}
# The stages that rerun after a change in a file or folder. Stages that rerun only if the outputs of
# these stages change are not listed.
RERUNS = {
    "docs": set(),
    "src/roofseg/commands": set(),
    "src/roofseg/intake": set(),
    "src/roofseg/mapping": set(),
    "src/roofseg/studies/report": set(),
    "src/roofseg/tuning": set(),
    "src/roofseg/report": {"leaderboard"},
    "src/roofseg/pages": {"leaderboard"},
    "src/roofseg/training": TRAIN,
    "src/roofseg/evaluation": EVALUATE,
    "src/roofseg/sliding_window": EVALUATE,
    "src/roofseg/models": {"check_params", *TRAIN, *EVALUATE},
    "src/roofseg/results": {"leaderboard", *EVALUATE},
    "src/roofseg/cutting": {"make_patches"},
    "src/roofseg/core": {
        *("check_params", "make_patches", "baselines", "leaderboard"),
        *(*TRAIN, *EVALUATE, "weights/dvc.yaml:prior@scratch"),
    },
}


def outdated() -> set[str]:
    """The stages that `dvc status` reports in this folder, without a process for each call."""
    with Repo() as repo:
        return set(repo.status())


@pytest.mark.whole
def test_what_a_change_of_code_reruns(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change in a folder makes those stages outdated that list it, and no others."""
    monkeypatch.chdir(project.folder)
    never_ran = outdated()
    assert not {name for name in never_ran if "dvc.yaml" not in name}
    for place, reruns in RERUNS.items():
        file = max(Path(place).glob("*.*"), key=lambda path: path.stat().st_size)
        text = file.read_text()
        file.write_text(f"{text}\n# changed\n")
        found = outdated() - never_ran
        file.write_text(text)
        assert found == reruns, f"after a change in {place}"


@pytest.mark.whole
def test_compiled_code_reruns_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    never_ran = outdated()
    cache = Path("src/roofseg/training/__pycache__")
    cache.mkdir(exist_ok=True)
    (cache / "engine.cpython-311.pyc").write_bytes(b"another")
    assert outdated() == never_ran


@pytest.mark.release
def test_every_attempt_of_the_committed_sample_run_beats_the_floor() -> None:
    done = subprocess.run(
        ["git", "show", "HEAD:metrics/leaderboard.json"], cwd=ROOT, capture_output=True, text=True
    )
    board = json.loads(done.stdout) if done.returncode == 0 else {"dataset": None}
    if board["dataset"] != "sample":
        pytest.skip("the last commit holds no results of the sample dataset")
    floor = max(baseline["val"]["iou"] for baseline in board["floor"].values())
    assert len(board["attempts"]) == 5
    assert {row["attempt"] for row in board["attempts"] if row["val_iou"] <= floor} == set()


@pytest.mark.whole
def test_dvc_shows_plots(project: Project) -> None:
    project.run("dvc plots show -q -o shown")
    page = (project.folder / "shown" / "index.html").read_text()
    for text in ("Convergence, val IoU by epoch", "Precision and recall on val"):
        assert text in page


def in_the_last_attempt(project: Project, encoder: str) -> None:
    text = (project.folder / "params.yaml").read_text()
    head, _, rest = text.rpartition("encoder: tu-mobilenetv3_small_050")
    (project.folder / "params.yaml").write_text(head + f"encoder: {encoder}" + rest)


def without_nudges(project: Project) -> None:
    shutil.copytree(project.folder / "data" / "tiny", project.folder / "data" / "other")
    (project.folder / "data" / "other" / "nudges.csv").unlink()
    project.replace("params.yaml", "dataset: tiny", "dataset: other")


@pytest.mark.whole
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda project: project.replace("params.yaml", "device: cpu", "device: cpu\nlrr: 1"),
            "params.yaml: lrr: unknown key",  # which no stage names
        ),
        (
            lambda project: project.replace("params.yaml", "dataset: tiny", "dataset: tinny"),
            "params.yaml: dataset: found 'tinny', but there is no folder data/tinny; data/ has: ",
        ),
        (without_nudges, "data/other/nudges.csv: no such file"),
        (
            lambda project: in_the_last_attempt(project, "resnt34"),
            "params.yaml: attempts.smaller.encoder: found 'resnt34'",
        ),
        (
            lambda project: in_the_last_attempt(project, "densenet121"),
            "params.yaml: attempts.smaller.encoder: found 'densenet121', which DeepLabV3Plus",
        ),
    ],
    ids=["key", "dataset", "nudges", "encoder", "architecture"],
)
def test_what_is_wrong_is_found_before_anything_runs(
    project: Project, spoil: Callable[[Project], None], says: str
) -> None:
    spoil(project)
    done = project.run("dvc repro", check=False)
    assert done.returncode != 0
    assert f"error: {says}" in done.stderr
    assert set(re.findall("Running stage '(.*)'", done.stdout)) == {"check_params"}


@pytest.mark.parametrize("setting", ["lr=3e-4", "attempts.sam_conv.lr=1e-5", "augmentation=heavy"])
def test_settings_reach_the_committed_parameters(tmp_path: Path, setting: str) -> None:
    """`dvc exp run -S` takes them, and what DVC writes is read as it was meant."""
    shutil.copy(ROOT / "profiles" / "sample.yaml", tmp_path / "params.yaml")
    apply_overrides(str(tmp_path / "params.yaml"), [setting])
    params = parse_params((tmp_path / "params.yaml").read_text())
    key, value = setting.split("=")
    if key.startswith("attempts."):
        assert params.recipe("sam_conv").lr == float(value)
    else:
        assert str(getattr(params, key)) in (value, str(float(value) if key == "lr" else value))


@pytest.mark.whole
def test_make_works_where_the_path_has_a_space(finished: Project, tmp_path: Path) -> None:
    """With this environment as its .venv; make itself would take minutes to install one."""
    project = finished.copy(tmp_path / "a copy")
    (project.folder / ".venv").symlink_to(sys.prefix)
    done = project.run("make -o .venv/installed profile NAME=nosuch", check=False)
    assert done.returncode == 2
    message = (
        "error: profiles: no profile 'nosuch'; choose one of: austin512, beyond, inria, sample"
    )
    assert message in done.stderr
    assert "make repro" in project.run("make help").stdout
    assert UP_TO_DATE in project.run("make -o .venv/installed repro").stdout


@pytest.mark.whole
def test_an_attempts_own_key_reruns_that_attempt_alone(project: Project) -> None:
    project.replace("params.yaml", "    lr: 0.0003", "    lr: 0.0004")
    assert would_train(project) == {"smaller"}


@pytest.mark.whole
def test_whole_tiles_are_scored_without_training_anew(project: Project) -> None:
    project.replace("params.yaml", "evaluate_full_tiles: false", "evaluate_full_tiles: true")
    assert would_train(project) == set()
    project.run("dvc repro")
    folder = project.folder / "metrics"
    scores = json.loads((folder / "attempts" / "small" / "scores.json").read_text())
    assert list(scores) == ["val", "val_full_tiles"]
    tiles = pd.read_csv(folder / "attempts" / "small" / "tiles.csv").set_index("split")
    assert tiles.loc["val_full_tiles", ["tp", "fp", "fn", "tn"]].sum() == 96 * 96
    assert "val IoU, whole tiles |" in (folder / "leaderboard.md").read_text()
    project.run("rm -r data/tiny/imgs")
    done = project.run("python -m stages.evaluate --attempt small", check=False)
    assert done.returncode == 2
    assert "data/tiny/imgs/c.tif: no such file, but `evaluate_full_tiles: true`" in done.stderr


@pytest.mark.whole
def test_patches_are_the_record_once_the_tiles_are_gone(finished: Project, tmp_path: Path) -> None:
    """In a clone that pulls no tile all that follows runs, and gives what is committed."""
    home = finished.copy(tmp_path / "home")
    home.run(f"dvc remote add -q -d store '{tmp_path / 'store'}'")
    home.commit("a remote")
    attempts = "train@small train@smaller evaluate@small evaluate@smaller"
    made = f"make_patches weights/dvc.yaml:prior@scratch {attempts} leaderboard"
    home.run(f"dvc push -q {made}")
    project = home.clone(tmp_path / "clone")
    project.run(f"dvc pull -q {made}")
    assert UP_TO_DATE in project.run("dvc repro --allow-missing").stdout
    tuned = project.run("dvc exp run --allow-missing -S attempts.smaller.lr=0.0004").stdout
    project.run("git checkout -q params.yaml")
    for said in (tuned, project.run("dvc repro --allow-missing").stdout):
        ran = re.findall("Running stage '(.*)'", said)
        assert ran == ["check_params", "train@smaller", "evaluate@smaller", "leaderboard"]
    changed = project.run("git status --porcelain").stdout.split()[1::2]
    assert all(name.endswith((*TIMES, *TABLES, "dvc.lock")) for name in changed), changed
    assert not (project.folder / "data" / "tiny" / "imgs").exists()


@pytest.mark.whole
def test_a_shared_key_reruns_every_attempt(project: Project) -> None:
    project.replace("params.yaml", "augmentation: light", "augmentation: heavy")
    assert would_train(project) == {"small", "smaller"}


@pytest.mark.whole
def test_a_new_attempt_trains_alone(project: Project) -> None:
    block = "    encoder: tu-mobilenetv3_small_050\n    prior: scratch\n"
    project.replace(
        "params.yaml",
        "final:\n",
        f"  third:\n    architecture: unet\n{block}final:\n  third: null\n",
    )
    assert would_train(project) == {"third"}


@pytest.mark.whole
def test_the_leaderboard_ignores_a_removed_attempt(project: Project) -> None:
    project.replace("params.yaml", "  smaller: null\n", "")
    text = (project.folder / "params.yaml").read_text()
    start, end = text.index("  smaller:\n"), text.index("final:")
    (project.folder / "params.yaml").write_text(text[:start] + text[end:])
    project.run("dvc repro")
    board = pd.read_csv(project.folder / "metrics" / "leaderboard.csv")
    assert list(board.attempt) == ["small"]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("old", "new", "named", "stage"),
    [
        ("weight_decay: 0.0001", "weight_decay: -1", "weight_decay", "make_patches"),
        ("  smaller: null\n", "", "final.smaller", "make_patches"),
        ("    lr: 0.0003", "    lrr: 0.0003", "attempts.smaller.lrr", "train --attempt small"),
    ],
)
def test_bad_parameters_stop_before_anything_runs(
    project: Project, old: str, new: str, named: str, stage: str
) -> None:
    project.replace("params.yaml", old, new)
    done = project.run(f"python -m stages.{stage}", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: params.yaml: {named}")
    assert done.stderr.count("\n") == 1
    assert project.run("git status --porcelain").stdout.split() == ["M", "params.yaml"]


@pytest.mark.whole
def test_a_tuning_run_scores_val_and_never_test(project: Project) -> None:
    """`dvc exp run -S` writes 1e-05, retrains what it concerns, and leaves test sealed."""
    project.roofseg("finalize --all")
    project.commit("final")
    project.run("dvc repro evaluate@smaller")
    project.run("git add -A && git commit -q -m opened")
    scores = project.folder / "metrics" / "attempts" / "smaller" / "scores.json"
    assert "test" in json.loads(scores.read_text())

    project.run("dvc exp run -q -S attempts.smaller.lr=1e-05 evaluate@smaller")
    assert list(json.loads(scores.read_text())) == ["val"]
    record = json.loads((project.folder / "models" / "smaller" / "recipe.json").read_text())
    assert record["recipe"]["lr"] == 1e-05
    shown = json.loads(project.run("dvc metrics diff --json").stdout)
    assert set(shown) == {"metrics/smaller.json"}
    difference = shown["metrics/smaller.json"]["test.iou"]
    assert isinstance(difference["old"], float)
    assert difference["new"] == "sealed"

    done = project.run("dvc exp run -S final.small=0123456789ab evaluate@small", check=False)
    assert done.returncode != 0
    assert "git commit" in done.stderr


@pytest.mark.whole
def test_every_clone_runs_its_own_src(project: Project, finished: Project) -> None:
    """In a second clone and in a queued experiment, even where PYTHONPATH names another src."""
    source = project.folder / "src" / "roofseg" / "baselines.py"
    head, _, _ = source.read_text().partition('    return {"constant"')
    source.write_text(head + '    return {"file": __file__}\n')
    misled = f"PYTHONPATH='{finished.folder / 'src'}'"

    project.run(f"{misled} python -m stages.baselines")
    file = project.folder / "metrics" / "baselines.json"
    assert json.loads(file.read_text())["file"] == str(source)

    project.run("git checkout -q metrics")
    project.run(f"{misled} dvc exp run -q --queue --name own baselines")
    project.run(f"{misled} dvc exp run -q --run-all")
    ref = project.run("git for-each-ref --format='%(refname)' 'refs/exps/*/*/own'").stdout.strip()
    queued = Path(json.loads(project.run(f"git show {ref}:metrics/baselines.json").stdout)["file"])
    assert queued.is_relative_to(project.folder / ".dvc" / "tmp" / "exps")
    assert queued.parts[-3:] == ("src", "roofseg", "baselines.py")
