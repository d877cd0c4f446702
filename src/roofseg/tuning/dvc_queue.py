"""Queue, run, watch, stop and read DVC experiments by name, with the commands of dvc and git.

All functions work on the project in the current folder. A queued experiment keeps the files that
the workspace has when it is queued, and runs in a copy below .dvc/tmp/exps. Finished experiments
are commits under refs/exps/BASELINE/NAME, where BASELINE is the commit at which they were queued,
with a slash after its second digit.
"""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from roofseg.core.errors import UserError
from roofseg.core.signals import stop_signals

POLL_S = 2.0  # seconds between checks for finished experiments, which need only git
STATUS_EVERY = 10  # checks between calls of `dvc queue status`, which takes a second of CPU
SETTLE_S = 2.0  # seconds to wait after a request to stop, which reaches workers within a second
NO_WORKERS = 3  # statuses without workers until they count as gone; a busy machine may miss some

REF = re.compile(r"refs/exps/(\w\w)/(\w{38})/(\S+) (\w+)")
TASK = re.compile(r"^[0-9a-f]{7} +(\S+) .*(Queued|Running|Success|Failed)$")
WORKERS = re.compile(r"^Worker status: (\d+) active, (\d+) idle$", re.MULTILINE)


@dataclass(frozen=True)
class Finished:
    """A finished experiment: the commit at which it was queued, and the commit of its files."""

    baseline: str
    commit: str

    def read(self, path: str) -> str:
        """The text of the file ``path``, which git tracks; UserError if there is no such file."""
        return _output("git", "show", f"{self.commit}:./{path}")


def finished() -> dict[str, Finished]:
    """All finished experiments by name, of all baselines; of two with one name, the later one."""
    refs = _output(
        *("git", "for-each-ref", "refs/exps", "--sort=committerdate"),
        "--format=%(refname) %(objectname)",
    )
    matches = map(REF.fullmatch, refs.splitlines())
    return {match[3]: Finished(match[1] + match[2], match[4]) for match in matches if match}


def head() -> str:
    """The hash of the current commit."""
    return _output("git", "rev-parse", "HEAD").strip()


@dataclass(frozen=True)
class Status:
    """The queue: the state of each task (Queued, Running, Success or Failed), and its workers.

    ``active`` and ``idle`` count worker processes with and without a task.
    """

    tasks: Mapping[str, str]
    active: int
    idle: int


def status() -> Status:
    """Ask DVC for the tasks of its queue and the processes that work on them."""
    text = _dvc("queue", "status")
    tasks = {task[1]: task[2] for task in map(TASK.match, text.splitlines()) if task}
    workers = WORKERS.search(text)
    return Status(tasks, int(workers[1]), int(workers[2])) if workers else Status(tasks, 0, 0)


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Delay SIGINT (Ctrl-C), SIGTERM and SIGHUP until the end of the block."""
    # A signal mask would not do: it holds for one thread, and NumPy's threads would get the
    # signals.
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in stop_signals()}
    for number in handlers:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def queue(name: str, settings: Sequence[str], targets: Sequence[str]) -> None:
    """Queue an experiment of the workspace, with ``settings`` of params.yaml as `dvc exp run -S`.

    Signals are delayed: DVC writes the settings into params.yaml and then restores it.
    """
    changes = [word for setting in settings for word in ("-S", setting)]
    with delayed_signals():
        _dvc("exp", "run", "--queue", "--name", name, *changes, *targets)


def forget(names: Collection[str]) -> None:
    """Remove failed and lost tasks from the queue, so that their names can be queued again.

    A running task is lost if no worker is left, for example after the machine was switched off.
    """
    tasks = status().tasks
    lost = {name for name in names if tasks.get(name) == "Running"}
    if lost and any(_any_workers(status()) for _ in range(NO_WORKERS)):
        lost = set()
    if lost:
        _dvc("queue", "kill", "--force", *sorted(lost))
    failed = {name for name in names if tasks.get(name) == "Failed"}
    if lost or failed:
        _dvc("queue", "remove", *sorted(lost | failed))


def _any_workers(status: Status) -> bool:
    return status.active + status.idle > 0


@contextmanager
def workers(jobs: int, names: Collection[str]) -> Iterator[None]:
    """Start ``jobs`` workers on the queue; if the block raises, `stop` them and the experiments."""
    try:
        start(jobs)
        yield
    except BaseException:
        with delayed_signals():  # a second Ctrl-C must not interrupt stopping, which takes seconds
            try:
                print("stopping the running experiments after their last whole epoch", flush=True)
            finally:  # print fails if the reader of a pipe is gone
                stop(names)
        raise


def start(jobs: int) -> None:
    """Start ``jobs`` workers in the background, which work on the queue until it is empty."""
    # DVC would count idle workers that are about to end; within seconds they end or take a task.
    while status().idle:
        time.sleep(POLL_S)
    _dvc("queue", "start", "--jobs", str(jobs))


def stop(names: Collection[str]) -> None:
    """Stop the workers and those of the experiments that are running; queued ones stay queued.

    Signals are delayed: an interrupted stop would leave workers that nobody watches.
    """
    with delayed_signals():
        # `queue stop --kill` kills tasks first, and then their workers would take the next tasks.
        _dvc("queue", "stop")
        time.sleep(SETTLE_S)
        tasks = status().tasks
        if running := [name for name in names if tasks.get(name) == "Running"]:
            _dvc("queue", "kill", "--force", *running)


def watch(names: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Yield each experiment as it ends, with whether it succeeded, until all have ended.

    Raises UserError if no worker is left to run the others.
    """
    waiting, without_workers = set(names), 0
    for turn in itertools.count(1):
        failed: set[str] = set()
        if turn % STATUS_EVERY == 0:
            now = status()
            failed = {name for name in waiting if now.tasks.get(name) == "Failed"}
            without_workers = 0 if _any_workers(now) else without_workers + 1
        ended = waiting & finished().keys()
        for name in sorted(ended | failed):
            yield name, name in ended
        waiting -= ended | failed
        if not waiting:
            return
        if without_workers == NO_WORKERS:
            raise UserError(
                f"DVC's queue stopped with {len(waiting)} experiments left, for example "
                f"{min(waiting)} (see `dvc queue status`). Run the same command again to continue."
            )
        time.sleep(POLL_S)


def _dvc(*arguments: str) -> str:
    return _output(sys.executable, "-m", "dvc", *arguments)


def _output(*command: str) -> str:
    # Output goes to files: background workers of `dvc queue start` inherit it, and the reader of a
    # pipe would wait for their end. In a session of their own, workers do not receive Ctrl-C.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
        )
        out.seek(0)
        errors.seek(0)
        printed, complaint = out.read(), errors.read()
    if done.returncode:
        lines = (complaint or printed).strip().splitlines() or [f"status {done.returncode}"]
        # After its error message, DVC prints a line about where to get support.
        messages = (line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
        program = command[2:] if command[0] == sys.executable else command
        raise UserError(f"`{' '.join(program[:3])}` fails: {next(messages, lines[-1])}")
    return printed
