"""DVC's real experiments and queue, with stages that end in a moment."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from processes import wait_until
from project import environment, git

from roofseg.core.errors import UserError
from roofseg.tuning import dvc_queue

PIPELINE = """\
stages:
  train:
    foreach: ${attempts}
    do:
      cmd: exec sh train.sh ${key}
      params:
        - attempts.${key}
      deps:
        - train.sh
      metrics:
        - ${key}.json:
            cache: false
"""
# Waits for the file `go` beside the project, and fails where the learning rate is 9.
TRAIN = """\
echo begun >> "%(beside)s/begun"
grep -q 'lr: 9' params.yaml && exit 1
until [ -e "%(beside)s/go" ]; do sleep 0.1; done
echo '{"val": {"iou": 0.5}}' > $1.json
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, the current folder."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "test@example.org")
    git(folder, "config", "user.name", "test")
    (folder / "scores.txt").write_text("0.5\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "start")
    return folder


def test_finished_experiments_are_found_by_name(repository: Path) -> None:
    assert dvc_queue.finished() == {}
    commit = dvc_queue.head()
    git(repository, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/tune-a-1", commit)
    git(repository, "update-ref", "refs/exps/celery/stash", commit)  # DVC's own
    (found,) = dvc_queue.finished().items()
    assert found == ("tune-a-1", dvc_queue.Finished(commit, commit))
    assert found[1].read("scores.txt") == "0.5\n"
    with pytest.raises(UserError, match=r"`git show .*nosuch\.txt` fails: "):
        found[1].read("nosuch.txt")


def test_a_folder_without_git_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match=r"`git for-each-ref refs/exps` fails: .*not a git repo"):
        dvc_queue.finished()


def test_signals_wait_until_the_block_is_over() -> None:
    before = signal.getsignal(signal.SIGINT)
    done = []

    def work() -> None:
        with dvc_queue.delayed_signals():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with dvc_queue.delayed_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def project(repository: Path) -> Iterator[Path]:
    """A pipeline of two attempts that both wait for the file `go`."""
    beside = repository.parent
    for name, text in {
        "dvc.yaml": PIPELINE,
        "params.yaml": "attempts:\n  a:\n    lr: 1\n  b:\n    lr: 1\n",
        "train.sh": TRAIN % {"beside": beside},
    }.items():
        (repository / name).write_text(text)
    subprocess.run(["dvc", "init", "-q"], check=True, env=environment())
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "pipeline")
    yield repository
    kill(at_work(repository))  # if the test failed


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def wait_until_begun(project: Path) -> None:
    """Wait for the first task of the queue."""
    wait_until((project.parent / "begun").exists, lambda: at_work(project))


def at_work(project: Path, word: str = "") -> list[psutil.Process]:
    """The processes of this project's queue with ``word`` in their command: workers and stages."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = " ".join(process.info["cmdline"] or [])
        of_here = (process.info["cwd"] or "").startswith(str(project))
        if of_here and process.pid != os.getpid() and word in command:
            found.append(process)
    return found


def queue(lr: int, attempt: str = "a") -> str:
    dvc_queue.queue(f"try-{lr}", [f"attempts.{attempt}.lr={lr}"], [f"train@{attempt}"])
    return f"try-{lr}"


@pytest.mark.whole
def test_an_error_of_dvc_is_reported(project: Path) -> None:
    with pytest.raises(UserError, match=r"^`dvc exp run` fails: .*nosuch"):
        dvc_queue.queue("x", [], ["nosuch"])


@pytest.mark.whole
def test_a_stopped_queue_continues(project: Path) -> None:
    names = [queue(lr, attempt) for lr, attempt in ((2, "a"), (3, "b"), (9, "a"))]
    assert dvc_queue.status() == dvc_queue.Status(dict.fromkeys(names, "Queued"), active=0, idle=0)
    dvc_queue.start(1)
    wait_until_begun(project)
    dvc_queue.stop(names)
    assert dvc_queue.status().tasks == {"try-2": "Failed", "try-3": "Queued", "try-9": "Queued"}
    wait_until(lambda: not at_work(project, "queue-worker"))
    assert (project.parent / "begun").read_text() == "begun\n"  # no other task was started

    dvc_queue.forget(names)
    assert dvc_queue.status().tasks == {"try-3": "Queued", "try-9": "Queued"}
    queue(2)
    (project.parent / "go").touch()
    dvc_queue.start(2)
    assert dict(dvc_queue.watch(names)) == {"try-2": True, "try-3": True, "try-9": False}
    found = dvc_queue.finished()
    assert found.keys() == {"try-2", "try-3"}
    assert found["try-3"].read("b.json") == '{"val": {"iou": 0.5}}\n'

    assert "lr: 3" in found["try-3"].read("params.yaml")
    assert found["try-3"].baseline == dvc_queue.head()
    dvc_queue.forget(names)
    assert "try-9" not in dvc_queue.status().tasks
    queue(9)  # its name is free again


@contextmanager
def interrupted_while_delayed() -> Iterator[None]:
    """Type Ctrl-C once the block has begun to delay signals; it raises at the end of the delay."""
    default = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        wait_until(lambda: signal.getsignal(signal.SIGINT) is not default)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()


@pytest.mark.whole
def test_ctrl_c_waits_until_an_experiment_is_queued(project: Path) -> None:
    """Meanwhile DVC writes the settings into params.yaml, and then restores it."""
    before = (project / "params.yaml").read_text()
    with interrupted_while_delayed():
        queue(2)
    assert (project / "params.yaml").read_text() == before
    assert dvc_queue.status().tasks == {"try-2": "Queued"}


@pytest.mark.whole
def test_ctrl_c_waits_until_everything_is_stopped(project: Path) -> None:
    name = queue(2)
    dvc_queue.start(1)
    wait_until_begun(project)
    with interrupted_while_delayed():
        dvc_queue.stop([name])
    assert dvc_queue.status().tasks == {name: "Failed"}
    wait_until(lambda: not at_work(project, "queue-worker"))
    (project.parent / "go").touch()  # ends the stage, which does not watch its parent


@pytest.mark.whole
def test_a_queue_without_workers_is_noticed_and_its_tasks_freed(project: Path) -> None:
    name = queue(2)
    dvc_queue.start(1)
    wait_until_begun(project)
    kill(at_work(project))  # as if the machine had been switched off
    wait_until(lambda: not at_work(project))
    with pytest.raises(
        UserError, match="DVC's queue stopped with 1 experiments left, for example try-2"
    ):
        list(dvc_queue.watch([name]))
    dvc_queue.forget([name])
    (project.parent / "go").touch()
    queue(2)
    dvc_queue.start(1)
    assert list(dvc_queue.watch([name])) == [(name, True)]
