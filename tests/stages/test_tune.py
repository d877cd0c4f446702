"""`make tune` and `make tuning-report` with real DVC experiments, on tiny tiles."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from dataclasses import dataclass

import pandas as pd
import psutil
import pytest
from project import Project, environment
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow

TUNING = """\
seed: 3
runs: 2
attempts:
  small:
    lr: [0.001, 0.003]
    augmentation: [light]
  smaller:
    lr: [0.00001, 0.0003]
    augmentation: [light, heavy]
"""


@dataclass(frozen=True)
class Tuned:
    """What was printed on the way, and where it led."""

    project: Project
    stopped: str
    status: int
    left_running: list[str]
    gone_on: str
    nothing_left: str
    report: str
    table: pd.DataFrame

    def ref(self, name: str) -> str:
        return self.project.run(
            f"git for-each-ref --format='%(refname)' 'refs/exps/*/*/{name}'"
        ).stdout.strip()

    def shown(self, name: str, path: str) -> str:
        """A file of the experiment that git keeps."""
        return self.project.run(f"git show {self.ref(name)}:{path}").stdout


def of_this_project(project: Project) -> list[str]:
    """Processes that train, evaluate or work on the queue in this project or its copies."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = " ".join(process.info["cmdline"] or [])
        if (process.info["cwd"] or "").startswith(str(project.folder)) and (
            "stages.train" in command or "exp exec-run" in command
        ):
            found.append(command)
    return found


def stop_after(project: Project, command: str, *lines: str) -> tuple[str, int]:
    """Interrupt a command after each of ``lines``, patterns; gives its words and status."""
    process = subprocess.Popen(
        command.split(),
        cwd=project.folder,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    said = ""
    for line in lines:
        while not re.search(line, said, re.DOTALL):
            said += (new := process.stdout.readline())
            assert new, said
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate()
    return said + rest, process.returncode


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    project = Project.create(tmp_path_factory.mktemp("tuned") / "project")
    (project.folder / "studies" / "tuning.yaml").write_text(TUNING)
    project.run("dvc repro -q make_patches weights/dvc.yaml:scratch")
    project.commit("ready to tune")
    tune = "python -m stages.tune --jobs 1"
    stopped, status = stop_after(project, tune, "val IoU", "stopping")
    for _ in range(100):  # training ends after its step
        if not (left_running := of_this_project(project)):
            break
        time.sleep(0.3)
    gone_on = project.run(tune).stdout
    nothing_left = project.run(tune).stdout
    report = project.run("python -m stages.tuning_report").stdout
    table = pd.read_csv(project.folder / "metrics" / "studies" / "tuning.csv")
    return Tuned(project, stopped, status, left_running, gone_on, nothing_left, report, table)


def test_a_stopped_tuning_leaves_nothing_running(tuned: Tuned) -> None:
    """Nor does one that is interrupted again while it stops."""
    assert tuned.status == 130
    assert "0 of 4 runs are done already" in tuned.stopped
    assert tuned.stopped.count("queued tune-") == 4
    assert "error: stopped by SIGINT" in tuned.stopped
    assert "`make tune` goes on" in tuned.stopped
    assert tuned.left_running == []


def test_a_stopped_tuning_goes_on(tuned: Tuned) -> None:
    """What was done stays done, what was queued stays queued: only what was killed is queued."""
    assert "1 of 4 runs are done already" in tuned.gone_on
    assert tuned.gone_on.count("queued tune-") <= 1
    assert tuned.gone_on.count(": val IoU") == 3
    assert "All runs are done." in tuned.gone_on
    assert "4 of 4 runs are done already" in tuned.nothing_left
    assert "queued" not in tuned.nothing_left


def test_every_attempt_had_the_same_budget(tuned: Tuned) -> None:
    assert tuned.table.attempt.value_counts().to_dict() == {"small": 2, "smaller": 2}
    assert set(tuned.table.state) == {"done"}
    # Two runs of a grid of two by two use each value once.
    own = tuned.table[tuned.table.attempt == "smaller"]
    assert own.lr.nunique() == own.augmentation.nunique() == 2


def test_a_run_is_of_its_attempts_stages_alone(tuned: Tuned) -> None:
    for row in tuned.table.itertuples():
        stages = YAML(typ="safe").load(tuned.shown(row.name, "dvc.lock"))["stages"]
        others = {stage for stage in stages if "@" in stage}
        assert others == {f"train@{row.attempt}", f"evaluate@{row.attempt}"}
        recipe = json.loads(tuned.shown(row.name, f"metrics/attempts/{row.attempt}/training.json"))
        assert recipe["recipe"]["lr"] == row.lr
        assert recipe["recipe"]["augmentation"] == row.augmentation


def test_tuning_sees_val_alone(tuned: Tuned) -> None:
    for row in tuned.table.itertuples():
        folder = f"metrics/attempts/{row.attempt}"
        scores = json.loads(tuned.shown(row.name, f"{folder}/scores.json"))
        assert "val" in scores
        assert not [split for split in scores if split.startswith("test")]
        assert row.val_iou == pytest.approx(scores["val"]["iou"], abs=1e-6)
        assert len(tuned.shown(row.name, f"{folder}/test_looks.csv").splitlines()) == 1


def test_the_report_draws_and_says_how_to_apply(tuned: Tuned) -> None:
    plots = tuned.project.folder / "plots" / "studies"
    names = {"tuning_lr.png", "tuning_augmentation.png", "tuning_best.png"}
    assert {path.name for path in plots.glob("*.png")} == names
    best = tuned.table.sort_values("val_iou", ascending=False).groupby("attempt").head(1)
    assert set(re.findall(r"dvc exp apply (\S+)", tuned.report)) <= set(best.name)
    assert tuned.report.count("dvc exp apply") == 1
    assert tuned.report.count("dvc exp run -S") == 1
    assert tuned.project.run("git status --porcelain").stdout.split() == ["??", "metrics/studies/"]


def test_the_winners_are_applied_by_the_commands_of_the_report(tuned: Tuned) -> None:
    """Both lead to the models that were tuned, and the second leaves the first in force."""
    apply, others = (
        re.search(rf"^dvc exp {word} .*$", tuned.report, re.MULTILINE) for word in ("apply", "run")
    )
    assert apply
    assert others
    project = tuned.project
    # DVC complains of what was never made here (another dataset's tiles), when all else is applied.
    done = project.run(apply[0], check=False)
    assert done.returncode == 0 or "Checkout failed" in done.stderr
    assert "params.yaml" in project.run("git diff --stat").stdout
    name = apply[0].split()[-1]
    attempt = name.split("-")[1]
    applied = project.folder / "metrics" / "attempts" / attempt / "scores.json"
    assert applied.read_text() == tuned.shown(name, f"metrics/attempts/{attempt}/scores.json")
    digest = json.loads((project.folder / "models" / attempt / "recipe.json").read_text())["digest"]
    assert (
        f"final.{attempt}: {digest}" in project.run(f"python -m stages.finalize {attempt}").stdout
    )
    project.run(f"python -m stages.finalize --undo {attempt}")
    project.run(others[0])
    for row in tuned.table.loc[tuned.table.groupby("attempt").val_iou.idxmax()].itertuples():
        path = f"metrics/attempts/{row.attempt}/scores.json"
        assert (project.folder / path).read_text() == tuned.shown(row.name, path)
    assert "Running stage 'train" not in project.run("dvc repro --dry evaluate@small").stdout
    # A recipe that is in force is the same recipe: nothing is to be tuned again.
    assert "4 of 4 runs are done already" in project.run("python -m stages.tune").stdout
    project.run("git checkout -q . && dvc checkout -q --allow-missing --force")


def test_optuna_finds_the_same_scores_and_goes_on(tuned: Tuned) -> None:
    """Stopped in its second trial, it has the first no more to do; recipes score as in DVC's."""
    pytest.importorskip("optuna")
    command = "python -m stages.tune --engine optuna"
    said, status = stop_after(tuned.project, command, r"\[1/2\].*epoch 1/2")
    assert status == 130, said
    gone_on = tuned.project.run(command).stdout
    assert "[1/2] small " not in gone_on
    assert "[2/2] small " in gone_on
    assert gone_on.count("] smaller ") == 2
    assert "]" not in tuned.project.run(command).stdout
    report = tuned.project.run("python -m stages.tuning_report").stdout
    assert "| optuna |" in report
    table = pd.read_csv(tuned.project.folder / "metrics" / "studies" / "tuning.csv")
    assert table.engine.value_counts().to_dict() == {"grid": 4, "optuna": 4}
    both = table[table.state == "done"].groupby("name").filter(lambda own: len(own) == 2)
    # All there is of small, whose grid is as large as the budget.
    assert both.attempt.value_counts()["small"] == 4
    assert (both.groupby("name").val_iou.nunique() == 1).all()
