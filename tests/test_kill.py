"""Real training stages, killed at random moments and started again, end as if nothing had been.

`make prove-resumable` kills twenty times; `make test` three times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from project import Project, environment

TRAIN = "dvc repro --quiet train@small"
EPOCHS = 8


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that is ready to train."""
    project = Project.create(tmp_path_factory.mktemp("cut") / "project")
    project.replace("params.yaml", "epochs: 2", f"epochs: {EPOCHS}")
    project.replace("params.yaml", "draws_per_epoch: 4", "draws_per_epoch: 20")
    project.replace("params.yaml", "freeze_epochs: 0", "freeze_epochs: 3")
    project.replace("params.yaml", "ema_decay: null", "ema_decay: 0.5")
    project.run("dvc repro --quiet make_patches weights/dvc.yaml:scratch")
    project.commit("patches")
    return project


@pytest.fixture(scope="module")
def whole(cut: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run gives that nobody kills."""
    project = cut.copy(tmp_path_factory.mktemp("whole") / "project")
    project.run(TRAIN)
    return outputs(project)


def outputs(project: Project) -> dict[str, bytes]:
    """What training wrote, but for its times."""
    folders = ("models", "plots/training", "metrics/attempts/small")
    files = [file for name in folders for file in (project.folder / name).rglob("*")]
    return {
        str(file.relative_to(project.folder)): file.read_bytes()
        for file in files
        if file.is_file() and file.name != "times.json"
    }


def trainers(project: Project) -> list[psutil.Process]:
    """The processes that train in the project now."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        if "stages.train" in command and process.info["cwd"] == str(project.folder):
            found.append(process)
    return found


def epochs(project: Project) -> int:
    """How many epochs the curves have."""
    curve = project.folder / "metrics/attempts/small/live/plots/metrics/val/iou.tsv"
    return curve.read_text().count("\n") - 1 if curve.exists() else 0


def kill(project: Project, who: str, number: int, epoch: int, after_s: float) -> None:
    """Start training; some seconds after an epoch kill dvc, the trainer, or all that was started.

    After epoch 0 is at the start: before there is a trainer, or while it imports its libraries.
    """
    started = subprocess.Popen(
        TRAIN.split(),
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while epoch and epochs(project) < epoch and started.poll() is None:
        time.sleep(0.02)
    time.sleep(after_s)
    if who == "group":
        os.killpg(started.pid, number)
    elif who == "trainer":
        for process in trainers(project):
            process.send_signal(number)
    else:
        started.send_signal(number)
    started.wait()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_ends_with_the_same_bytes(
    kills: int, cut: Project, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Killed at random (dvc, the trainer, or both) and run again: the same weights and curves."""
    choose = random.Random(kills)
    project, finished = cut.copy(tmp_path / "0"), 0
    for killed in range(1, kills + 1):
        who = choose.choice(["dvc", "trainer", "group"])
        number = choose.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        epoch = choose.randint(0, EPOCHS)
        kill(project, who, number, epoch, choose.uniform(0, 4 if epoch == 0 else 0.4))
        print(f"kill {killed}: {who} by {number.name} after epoch {epoch}")
        if killed % 4 and killed < kills:
            continue
        # An orphan may be left: the next run waits for it and goes on.
        project.run(TRAIN)
        assert outputs(project) == whole
        assert list((project.folder / ".state").iterdir()) == []
        assert trainers(project) == []
        finished += 1
        project = cut.copy(tmp_path / str(killed))
    assert finished == -(-kills // 4)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_stage_with_its_status_and_says_how_to_go_on(
    cut: Project, tmp_path: Path, number: int, status: int
) -> None:
    project = cut.copy(tmp_path / "project")
    stage = subprocess.Popen(
        ["python", "-u", "-m", "stages.train", "--attempt", "small"],
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert stage.stdout
    while "epoch 2/" not in stage.stdout.readline():
        assert stage.poll() is None
    stage.send_signal(number)
    _, error = stage.communicate()
    assert stage.returncode == status, error
    assert error.startswith(f"error: stopped by {signal.Signals(number).name}. Kept: ")
    assert error.count("\n") == 1


def test_a_run_that_nobody_started_does_not_go_on(cut: Project, tmp_path: Path) -> None:
    """Where dvc is killed alone, its trainer ends by itself after a step."""
    project = cut.copy(tmp_path / "project")
    # DVC's own default where there is no SHELL. Not every sh gives its place to its last command,
    # and one that stays would be the trainer's parent.
    plain = {**environment(), "SHELL": "/bin/sh"}
    started = subprocess.Popen(TRAIN.split(), cwd=project.folder, env=plain)
    while epochs(project) < 2:
        time.sleep(0.02)
        assert started.poll() is None
    [trainer] = trainers(project)
    started.kill()
    started.wait()
    assert trainer.wait(timeout=60) is not None or not trainer.is_running()
    assert not (project.folder / "models" / "small").exists()
