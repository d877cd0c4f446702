"""Real training stages, killed at random moments and started again, end as if nothing had been.

`make prove-resumable` kills twenty times; `make test` three times.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from project import Project, environment

TRAIN = "dvc repro --quiet train@small"
EPOCHS = 8
LIVE = "metrics/attempts/small/live"
# DVC lets a Ctrl-C that reaches it alone pass: a terminal sends it to its stage too.
WAYS = [
    (who, number)
    for who in ("dvc", "trainer", "group")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    if (who, number) != ("dvc", signal.SIGINT)
]


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
    curve = project.folder / LIVE / "plots/metrics/val/iou.tsv"
    return curve.read_text().count("\n") - 1 if curve.exists() else 0


def kill(project: Project, who: str, number: int, epoch: int, after_s: float) -> bool:
    """Start training; some seconds after an epoch kill dvc, the trainer, or all that was started.

    After epoch 0 is at the start, while the trainer imports its libraries; after the last it writes
    its outputs. Says whether a trainer was at work: it may have ended before.
    """
    # It shows the epochs of the run before.
    shutil.rmtree(project.folder / LIVE, ignore_errors=True)
    started = subprocess.Popen(
        TRAIN.split(),
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while started.poll() is None and (epochs(project) < epoch if epoch else not trainers(project)):
        time.sleep(0.02)
    time.sleep(after_s)
    at_work = trainers(project)
    if who == "group":
        with suppress(ProcessLookupError):
            os.killpg(started.pid, number)
    elif who == "trainer":
        for process in at_work:
            process.send_signal(number)
    else:
        started.send_signal(number)
    started.wait()
    return bool(at_work)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_ends_with_the_same_bytes(
    kills: int, cut: Project, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Up to three times, by every way and in every phase, and run again: the same bytes."""
    choose = random.Random(kills)
    ways = choose.sample(WAYS, len(WAYS))
    phases = [range(1, EPOCHS), [EPOCHS], [0]]
    project, killed, went_on = cut.copy(tmp_path / "0"), 0, 0
    for attempt in range(1, 2 * kills):
        who, number = ways[killed % len(ways)]
        epoch = choose.choice(phases[killed % len(phases)])
        after_s = choose.uniform(0, 4 if epoch == 0 else 0.4)
        at_work = kill(project, who, number, epoch, after_s)
        print(f"{who} by {number.name} after epoch {epoch}{'' if at_work else ': too late'}")
        killed += at_work
        if at_work and killed % len(phases) and killed < kills:
            continue
        # An orphan may be left: the next run waits for it and goes on.
        kept = any((project.folder / ".state").glob("*/last.ckpt"))
        done = project.run(TRAIN)
        assert not kept or "small  goes on after epoch" in done.stdout
        assert outputs(project) == whole
        assert list((project.folder / ".state").iterdir()) == []
        assert trainers(project) == []
        went_on += kept
        # A signal after the last step may let the run end, and then nothing is left to go on from.
        if killed >= kills and went_on:
            break
        project = cut.copy(tmp_path / str(attempt))
    assert killed >= kills
    assert went_on


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
    trainer.wait(timeout=60)
    assert not (project.folder / "models" / "small").exists()


def test_a_finished_run_waits_for_the_dvc_that_notes_it(cut: Project, tmp_path: Path) -> None:
    """Where dvc dies before the outputs are written, nobody would note them: the state is kept."""
    project = cut.copy(tmp_path / "project")
    project.replace("stages/train.py", "            if trained:\n", WAIT)
    started = subprocess.Popen(TRAIN.split(), cwd=project.folder, env=environment())
    while not (project.folder / "finished").exists():
        time.sleep(0.02)
        assert started.poll() is None
    [trainer] = trainers(project)
    started.kill()
    started.wait()
    (project.folder / "finished").unlink()
    trainer.wait(timeout=60)
    assert not (project.folder / "models" / "small").exists()
    assert list((project.folder / ".state").glob("small@*/last.ckpt"))


WAIT = """            Path("finished").touch()
            while Path("finished").exists():
                pass
            if trained:
"""


def test_outputs_that_cannot_be_written_are_a_clear_error(cut: Project, tmp_path: Path) -> None:
    project = cut.copy(tmp_path / "project")
    (project.folder / "models").write_text("in the way")
    done = project.run("python -m stages.train --attempt small", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the run cannot be written: ")
    assert "goes on after the last epoch that is kept" in done.stderr
    assert list((project.folder / ".state").glob("small@*/last.ckpt"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_training_is_a_line_too(cut: Project, number: int, status: int) -> None:
    stage = subprocess.Popen(
        ["python", "-m", "stages.train", "--attempt", "small"],
        cwd=cut.folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while psutil.Process(stage.pid).memory_info().rss < 60e6:  # libraries are being imported
        time.sleep(0.01)
    stage.send_signal(number)
    _, error = stage.communicate()
    assert (stage.returncode, error) == (
        status,
        f"error: stopped by {signal.Signals(number).name}\n",
    )
