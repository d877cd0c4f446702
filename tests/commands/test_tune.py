"""`roofseg tune` and `roofseg tuning-report` with real DVC experiments, on tiny tiles."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass

import pandas as pd
import psutil
import pytest
from processes import started, wait_until
from project import Project, environment
from ruamel.yaml import YAML

pytestmark = pytest.mark.whole

TUNING = """\
sampler: grid
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


# Without the virtual environment on PATH: the command finds DVC, and DVC the stages' `python`.
PYTHON = f"env PATH=/usr/bin:/bin PYTHONPATH=src PYTHONUNBUFFERED=1 {shlex.quote(sys.executable)}"
ROOFSEG = f"{PYTHON} -P -m roofseg"
TUNE, REPORT = f"{ROOFSEG} tune", f"{ROOFSEG} tuning-report"


@dataclass(frozen=True)
class Tuned:
    """The output of the commands, and the table that they wrote."""

    project: Project
    stopped: str
    status: int
    gone_on: str
    nothing_left: str
    report: str
    table: pd.DataFrame

    def ref(self, name: str) -> str:
        return self.project.run(
            f"git for-each-ref --format='%(refname)' 'refs/exps/*/*/{name}'"
        ).stdout.strip()

    def shown(self, name: str, path: str) -> str:
        """The text of a file in the commit of an experiment."""
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
    """Interrupt a command after each of ``lines`` (patterns); return its output and exit status."""
    with started(
        shlex.split(command),
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
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
    project.run("dvc repro -q make_patches weights/dvc.yaml:prior@scratch")
    project.commit("ready to tune")
    stopped, status = stop_after(project, TUNE, "val IoU", "stopping")
    wait_until(lambda: not of_this_project(project))  # training ends after its step
    gone_on = project.run(TUNE).stdout
    nothing_left = project.run(TUNE).stdout
    report = project.run(REPORT).stdout
    table = pd.read_csv(project.folder / "metrics" / "studies" / "tuning.csv")
    return Tuned(project, stopped, status, gone_on, nothing_left, report, table)


def test_a_stopped_tuning_leaves_nothing_running(tuned: Tuned) -> None:
    """Even if it is interrupted again while it stops."""
    assert tuned.status == 130
    assert tuned.stopped.count("queued tune-") == 4
    assert "stopping the running experiments after their last whole epoch" in tuned.stopped
    assert "error: stopped by SIGINT; run the same command again" in tuned.stopped


def test_a_stopped_tuning_continues(tuned: Tuned) -> None:
    """Finished runs stay finished and queued runs queued; only the killed run is queued again."""
    assert tuned.gone_on.count(", already finished") == 1
    assert tuned.gone_on.count("queued tune-") <= 1
    assert tuned.gone_on.count(": val IoU") == 4
    assert "[4/4]" in tuned.gone_on
    assert "All runs are done." in tuned.gone_on
    assert tuned.nothing_left.count(", already finished") == 4
    assert "queued tune-" not in tuned.nothing_left


def test_every_attempt_had_the_same_budget(tuned: Tuned) -> None:
    assert tuned.table.attempt.value_counts().to_dict() == {"small": 2, "smaller": 2}
    assert set(tuned.table.state) == {"done"}
    # Two runs of a grid of two by two use each value once.
    own = tuned.table[tuned.table.attempt == "smaller"]
    assert own.lr.nunique() == own.augmentation.nunique() == 2


def test_a_run_runs_only_the_stages_of_its_attempt(tuned: Tuned) -> None:
    for row in tuned.table.itertuples():
        stages = YAML(typ="safe").load(tuned.shown(row.name, "dvc.lock"))["stages"]
        others = {stage for stage in stages if "@" in stage}
        assert others == {f"train@{row.attempt}", f"evaluate@{row.attempt}"}
        recipe = json.loads(tuned.shown(row.name, f"metrics/attempts/{row.attempt}/training.json"))
        assert recipe["recipe"]["lr"] == row.lr
        assert recipe["recipe"]["augmentation"] == row.augmentation


def test_tuning_scores_only_val(tuned: Tuned) -> None:
    for row in tuned.table.itertuples():
        folder = f"metrics/attempts/{row.attempt}"
        scores = json.loads(tuned.shown(row.name, f"{folder}/scores.json"))
        assert "val" in scores
        assert not [split for split in scores if split.startswith("test")]
        assert row.val_iou == pytest.approx(scores["val"]["iou"], abs=1e-6)
        assert len(tuned.shown(row.name, f"{folder}/test_looks.csv").splitlines()) == 1


def test_the_report_draws_and_prints_the_commands_that_apply_the_best(tuned: Tuned) -> None:
    plots = tuned.project.folder / "plots" / "studies"
    names = {"tuning_lr.png", "tuning_augmentation.png", "tuning_best.png"}
    assert {path.name for path in plots.glob("*.png")} == names
    best = tuned.table.sort_values("val_iou", ascending=False).groupby("attempt").head(1)
    assert set(re.findall(r"dvc exp apply (\S+)", tuned.report)) <= set(best.name)
    assert tuned.report.count("dvc exp apply") == 1
    assert tuned.report.count("dvc exp run -S") == 1
    assert tuned.project.run("git status --porcelain").stdout.split() == ["??", "metrics/studies/"]


def test_the_commands_of_the_report_apply_the_best_runs(tuned: Tuned) -> None:
    """Both give the tuned models, and the second command keeps the effect of the first."""
    apply, others = (
        re.search(rf"^dvc exp {word} .*$", tuned.report, re.MULTILINE) for word in ("apply", "run")
    )
    assert apply
    assert others
    project = tuned.project
    # At the end DVC complains about the models that nobody has trained here yet.
    done = project.run(apply[0], check=False)
    assert done.returncode == 0 or "Checkout failed" in done.stderr
    assert "params.yaml" in project.run("git diff --stat").stdout
    name = apply[0].split()[-1]
    attempt = name.split("-")[1]
    applied = project.folder / "metrics" / "attempts" / attempt / "scores.json"
    assert applied.read_text() == tuned.shown(name, f"metrics/attempts/{attempt}/scores.json")
    digest = json.loads((project.folder / "models" / attempt / "recipe.json").read_text())["digest"]
    params = (project.folder / "params.yaml").read_text()
    finalized = project.run(f"make -s -o .venv/installed finalize ATTEMPTS={attempt}").stdout
    assert f"final.{attempt}: {digest}" in finalized
    assert f"roofseg finalize {attempt}\n" in tuned.report
    (project.folder / "params.yaml").write_text(params)
    project.run(others[0])
    for row in tuned.table.loc[tuned.table.groupby("attempt").val_iou.idxmax()].itertuples():
        path = f"metrics/attempts/{row.attempt}/scores.json"
        assert (project.folder / path).read_text() == tuned.shown(row.name, path)
    assert "Running stage 'train" not in project.run("dvc repro --dry evaluate@small").stdout
    # The applied values change no run's recipe, so no run is tuned again.
    assert project.run(TUNE).stdout.count(", already finished") == 4
    project.run("git checkout -q . && dvc checkout -q --allow-missing --force")


def test_dvc_shows_every_run_as_an_experiment(tuned: Tuned) -> None:
    shown = tuned.project.run("dvc exp show --csv").stdout
    for row in tuned.table.itertuples():
        assert row.name in shown
    first, second = tuned.table.name[:2]
    difference = json.loads(
        tuned.project.run(f"dvc metrics diff --json {tuned.ref(first)} {tuned.ref(second)}").stdout
    )
    scores = difference["metrics/small.json"]["val.iou"]
    assert [scores["old"], scores["new"]] == pytest.approx(tuned.table.val_iou[:2].to_list())


def test_the_sampler_tpe_runs_experiments_and_continues(tuned: Tuned) -> None:
    """It takes the runs of the grid, runs the rest two at a time, and continues after a stop."""
    pytest.importorskip("optuna")
    project = tuned.project
    project.replace("studies/tuning.yaml", "sampler: grid", "sampler: tpe")
    # Change the grid of `smaller` only; none of its new runs is done.
    project.replace("studies/tuning.yaml", "[0.00001, 0.0003]", "[0.0001, 0.0005]")
    command = f"{TUNE} --jobs 2"
    stopped, status = stop_after(project, command, r"smaller[^\n]*: val IoU.*queued tune-smaller")
    assert status == 130, stopped
    assert stopped.count(", already finished") == 2 or "small lr" in stopped
    searches = json.loads((project.folder / "studies" / "searches.json").read_text())
    assert sorted(map(len, searches.values())) == [2, 2]
    gone_on = project.run(command).stdout
    assert gone_on.count(", already finished") == 3
    assert gone_on.count(": val IoU") == 4
    assert project.run(command).stdout.count(", already finished") == 4
    report = project.run(REPORT).stdout
    assert "by tpe" in report
    table = pd.read_csv(project.folder / "metrics" / "studies" / "tuning.csv")
    assert list(table.name) == [name for names in searches.values() for name in names]
    assert set(table.state) == {"done"}
    # The grid of `small` holds no other runs, and each run has one result.
    before = tuned.table[tuned.table.attempt == "small"].set_index("name").val_iou
    after = table[table.attempt == "small"].set_index("name").val_iou
    assert before.sort_index().to_dict() == after.sort_index().to_dict()
    assert project.run("git status --porcelain params.yaml dvc.lock").stdout == ""


def test_a_failed_run_is_named_and_the_others_run(tuned: Tuned) -> None:
    """With either sampler; the same command tries it again."""
    project = tuned.project
    project.run("git checkout -q studies/tuning.yaml")
    for sampler in ("grid", "tpe"):
        (project.folder / "studies" / "tuning.yaml").write_text(
            f"{{sampler: {sampler}, seed: 1, runs: 2, attempts: "
            "{small: {lr: [0.001], encoder_lr_factor: [1.0, 1e+30]}}}"
        )
        done = project.run(TUNE, check=False)
        assert done.returncode == 2
        assert done.stdout.count(": failed (dvc queue logs tune-small-") == 1
        assert done.stdout.count(": val IoU") == 1
        assert "error: 1 of 2 runs failed; `dvc queue logs tune-small-" in done.stderr
        project.run(REPORT)
        table = pd.read_csv(project.folder / "metrics" / "studies" / "tuning.csv")
        assert sorted(table.state) == ["done", "failed"]
