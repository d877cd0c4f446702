"""Real training stages that are killed at random moments and started again give the same bytes.

`make prove-resumable` kills twenty times; `make test` three times.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from processes import started, wait_until
from project import Project, environment

pytestmark = pytest.mark.whole

TRAIN = "dvc repro --quiet train@small"
RESUMED = re.compile(
    "small  (resumes the run|writes the outputs of the run that ended) after epoch"
)
EPOCHS = 8
LIVE = "metrics/attempts/small/live"
# DVC ignores a Ctrl-C that it gets alone: a terminal sends it to the stage too.
WAYS = [
    (who, number)
    for who in ("dvc", "trainer", "group")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    if (who, number) != ("dvc", signal.SIGINT)
]


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with patches and a prior, ready to train."""
    project = Project.create(tmp_path_factory.mktemp("cut") / "project")
    project.replace("params.yaml", "epochs: 2", f"epochs: {EPOCHS}")
    project.replace("params.yaml", "draws_per_epoch: 4", "draws_per_epoch: 20")
    project.replace("params.yaml", "freeze_epochs: 0", "freeze_epochs: 3")
    project.replace("params.yaml", "ema_decay: null", "ema_decay: 0.5")
    project.run("dvc repro --quiet make_patches weights/dvc.yaml:prior@scratch")
    project.commit("patches")
    return project


@pytest.fixture(scope="module")
def whole(cut: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outputs of a run that nobody kills."""
    project = cut.copy(tmp_path_factory.mktemp("whole") / "project")
    project.run(TRAIN)
    return outputs(project)


def outputs(project: Project) -> dict[str, bytes]:
    """The outputs of training, without its times."""
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
    """Count the epochs in the curve of val IoU."""
    curve = project.folder / LIVE / "plots/metrics/val/iou.tsv"
    return curve.read_text().count("\n") - 1 if curve.exists() else 0


def recorded(project: Project) -> bool:
    """Whether DVC has recorded a training."""
    lock = project.folder / "dvc.lock"
    return lock.exists() and "train@small" in lock.read_text()


def states(project: Project) -> list[Path]:
    """The states of finished runs, which are kept until the evaluate stage."""
    return sorted((project.folder / ".state").glob("*/finished.json"))


def kill(project: Project, who: str, number: int, epoch: int, after_s: float) -> bool:
    """Start training; some seconds after an epoch kill dvc, the trainer, or their process group.

    After epoch 0 means at the start, while the trainer imports its libraries; after the last epoch
    it writes its outputs. Returns whether a trainer was at work: it may have ended before.
    """
    # Its curves show the epochs of the run before.
    shutil.rmtree(project.folder / LIVE, ignore_errors=True)
    with started(
        TRAIN.split(),
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as dvc:
        wait_until(
            lambda: (
                dvc.poll() is not None or (epochs(project) >= epoch if epoch else trainers(project))
            )
        )
        time.sleep(after_s)
        at_work = trainers(project)
        if who == "group":
            with suppress(ProcessLookupError):
                os.killpg(dvc.pid, number)
        elif who == "trainer":
            for process in at_work:
                process.send_signal(number)
        else:
            dvc.send_signal(number)
        dvc.wait()
    return bool(at_work)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_ends_with_the_same_bytes(
    kills: int, cut: Project, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Killed up to three times, in every way and every phase, a run ends with the same bytes."""
    choose = random.Random(kills)
    ways = choose.sample(WAYS, len(WAYS))
    phases = [range(1, EPOCHS), [EPOCHS], [0]]
    project, killed, resumed = cut.copy(tmp_path / "0"), 0, 0
    for attempt in itertools.count(1):
        who, number = ways[killed % len(ways)]
        epoch = choose.choice(phases[killed % len(phases)])
        after_s = choose.uniform(0, 4 if epoch == 0 else 0.4)
        at_work = kill(project, who, number, epoch, after_s)
        print(f"{who} by {number.name} after epoch {epoch}{'' if at_work else ': too late'}")
        killed += at_work
        if at_work and killed % len(phases) and killed < kills:
            continue
        # A trainer may still run without its dvc: the next run waits for its end.
        kept = any((project.folder / ".state").glob("*/last.ckpt")) and not recorded(project)
        done = project.run(TRAIN)
        assert not kept or RESUMED.search(done.stdout)
        assert outputs(project) == whole
        assert len(states(project)) == 1
        assert trainers(project) == []
        resumed += kept
        # A kill in the first epoch leaves nothing to resume, and one at the end may come too late.
        if killed >= kills and resumed:
            break
        project = cut.copy(tmp_path / str(attempt))


def endless(cut: Project, folder: Path) -> Project:
    """A project whose training ends only when it is stopped."""
    project = cut.copy(folder / "project")
    project.replace("params.yaml", f"epochs: {EPOCHS}", "epochs: 100000")
    project.replace("params.yaml", "early_stopping_patience: 4", "early_stopping_patience: 100000")
    return project


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_stage_with_its_status_and_one_line(
    cut: Project, tmp_path: Path, number: int, status: int
) -> None:
    project = endless(cut, tmp_path)
    with started(
        ["python", "-u", "-m", "stages.train", "--attempt", "small"],
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as stage:
        assert stage.stdout
        while "epoch 2/" not in (line := stage.stdout.readline()):
            assert line, "it has ended"
        stage.send_signal(number)
        _, error = stage.communicate()
    assert stage.returncode == status, error
    assert error.startswith(f"error: stopped by {signal.Signals(number).name}. Kept: ")
    assert error.count("\n") == 1


def test_a_run_ends_when_its_dvc_is_killed(cut: Project, tmp_path: Path) -> None:
    """If dvc alone is killed, its trainer ends by itself after a step."""
    project = endless(cut, tmp_path)
    # DVC's default without SHELL. Not every sh replaces itself by its last command, and a shell
    # that stays would be the trainer's parent.
    plain = {**environment(), "SHELL": "/bin/sh"}
    with started(TRAIN.split(), cwd=project.folder, env=plain) as dvc:
        wait_until(lambda: epochs(project) >= 2, lambda: dvc.poll() is None)
        [trainer] = trainers(project)
        dvc.kill()
        dvc.wait()
    trainer.wait()
    assert not (project.folder / "models" / "small").exists()


@pytest.mark.parametrize("place", ["before the outputs", "after the outputs"])
def test_a_finished_run_that_dvc_did_not_record_is_not_trained_again(
    cut: Project, tmp_path: Path, place: str
) -> None:
    """If dvc dies before it records a finished run, the next one writes the same bytes."""
    project = cut.copy(tmp_path / "project")
    line = {
        "before the outputs": "                check_parent()\n                model = write(",
        "after the outputs": "                mark_finished(state, sha256_file(model))\n",
    }[place]
    paused = line + PAUSE if line.endswith("\n") else PAUSE + line
    project.replace("stages/train.py", line, paused)
    (project.folder / "pause").touch()
    with started(TRAIN.split(), cwd=project.folder, env=environment()) as dvc:
        wait_until((project.folder / "paused").exists, lambda: dvc.poll() is None)
        [trainer] = trainers(project)
        dvc.kill()
        dvc.wait()
    (project.folder / "pause").unlink()
    trainer.wait()
    first = outputs(project)
    assert (project.folder / "models" / "small").exists() == (place == "after the outputs")
    assert list((project.folder / ".state").glob("small@*/last.ckpt"))

    done = project.run(TRAIN)
    assert f"small  writes the outputs of the run that ended after epoch {EPOCHS}" in done.stdout
    assert "small  epoch" not in done.stdout
    assert recorded(project)
    again = outputs(project)
    assert {name: again[name] for name in first} == first
    assert len(states(project)) == 1

    project.run("dvc repro --quiet evaluate@small")
    assert list((project.folder / ".state").iterdir()) == []


PAUSE = """                Path("paused").touch()
                while Path("pause").exists():
                    pass
"""


def test_the_next_run_to_finish_removes_the_state_of_the_one_before(
    cut: Project, tmp_path: Path
) -> None:
    project = cut.copy(tmp_path / "project")
    project.replace("params.yaml", f"epochs: {EPOCHS}", "epochs: 4")
    project.run(TRAIN)
    before = states(project)
    project.replace("params.yaml", "seed: 1", "seed: 2")
    done = project.run(TRAIN)
    assert "unfinished" not in done.stdout
    assert len(states(project)) == len(before) == 1
    assert states(project) != before


def test_outputs_that_cannot_be_written_are_a_clear_error(cut: Project, tmp_path: Path) -> None:
    project = cut.copy(tmp_path / "project")
    (project.folder / "models").write_text("in the way")
    done = project.run("python -m stages.train --attempt small", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: models: File exists. Move away the file or folder that has this name"
    )
    assert list((project.folder / ".state").glob("small@*/last.ckpt"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_training_is_one_line_too(cut: Project, number: int, status: int) -> None:
    with started(
        ["python", "-m", "stages.train", "--attempt", "small"],
        cwd=cut.folder,
        env=environment(),
        stderr=subprocess.PIPE,
    ) as stage:
        memory = psutil.Process(stage.pid).memory_info
        # Libraries are being imported, which takes seconds more.
        wait_until(lambda: memory().rss > 60e6, lambda: stage.poll() is None)
        stage.send_signal(number)
        _, error = stage.communicate()
    name = signal.Signals(number).name
    assert stage.returncode == status
    assert error == f"error: stopped by {name}; run the same command again to continue\n"
