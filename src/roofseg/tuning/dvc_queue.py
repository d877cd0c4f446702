"""DVC experiments by name: queued, watched, stopped and read, through the commands of dvc and git.

A queued experiment takes its files from the workspace at that time, and runs in a copy below
.dvc/tmp/exps. Finished ones are commits under refs/exps/BASELINE/NAME, where BASELINE is the commit
that they were queued at, with a slash after its second digit.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from roofseg.core.errors import UserError

POLL_S = 2.0  # git alone looks so often
STATUS_EVERY = 10  # and dvc, which takes a second of CPU, once in so many times
SETTLE_S = 2.0  # a worker that was told to stop hears of it within a second

NO_WORKERS = 3  # times in a row: a busy machine's workers may be late to answer once

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

REF = re.compile(r"refs/exps/(\w\w)/(\w{38})/(\S+) (\w+)")
TASK = re.compile(r"^[0-9a-f]{7} +(\S+) .*(Queued|Running|Success|Failed)$")
WORKERS = re.compile(r"^Worker status: (\d+) active, (\d+) idle$", re.MULTILINE)


@dataclass(frozen=True)
class Finished:
    """A finished experiment: the commit it was queued at, and the one that holds its files."""

    baseline: str
    commit: str

    def read(self, path: str) -> str:
        """The text of a file of it that git keeps; UserError where it has none."""
        return _output("git", "show", f"{self.commit}:./{path}")


def finished() -> dict[str, Finished]:
    """All finished experiments by name, of every commit; of two of one name, the later one."""
    refs = _output(
        *("git", "for-each-ref", "refs/exps", "--sort=committerdate"),
        "--format=%(refname) %(objectname)",
    )
    found = map(REF.fullmatch, refs.splitlines())
    return {each[3]: Finished(each[1] + each[2], each[4]) for each in found if each}


def head() -> str:
    """The current commit."""
    return _output("git", "rev-parse", "HEAD").strip()


def shown(baselines: Collection[str]) -> dict[str, dict[str, Any]]:
    """What `dvc exp show --json` says of each experiment of these commits, by name.

    Beside ``rev``, ``params`` and ``metrics`` (by file), ``state`` is success, failed, running or
    queued; None where DVC no longer knows how it came about.
    """
    revisions = [word for each in sorted(baselines) for word in ("--rev", each)]
    found = {}
    for commit in json.loads(_dvc("exp", "show", "--json", *revisions)):
        for each in commit["experiments"] or ():
            data = each["revs"][0]["data"] or {}
            found[each["name"]] = {
                "rev": each["revs"][0]["rev"],
                "state": (each["executor"] or {}).get("state"),
                "params": _files(data.get("params", {})),
                "metrics": _files(data.get("metrics", {})),
            }
    return found


def _files(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {path: content["data"] for path, content in shown.items() if "data" in content}


@dataclass(frozen=True)
class Status:
    """The queue: what each task is (Queued, Running, Success or Failed), and how many workers."""

    tasks: Mapping[str, str]
    workers: int


def status() -> Status:
    """Ask DVC for the tasks of its queue and the processes that work on them."""
    text = _dvc("queue", "status")
    tasks = {found[1]: found[2] for found in map(TASK.match, text.splitlines()) if found}
    workers = [list(map(int, found.groups())) for found in WORKERS.finditer(text)]
    return Status(tasks, sum(map(sum, workers)))


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let Ctrl-C, and other requests to end, wait until the block is over."""
    # No mask of signals: it is one thread's, and NumPy's threads would take them all the same.
    came: list[int] = []
    caught = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = [signal.signal(each, lambda number, _: came.append(number)) for each in caught]
    try:
        yield
    finally:
        for each, handler in zip(caught, before, strict=True):
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])


def queue(name: str, settings: Sequence[str], targets: Sequence[str]) -> None:
    """Queue an experiment: the workspace with these settings of params.yaml (`-S`).

    Signals wait meanwhile: DVC writes the settings into params.yaml and then puts it back.
    """
    changes = [word for setting in settings for word in ("-S", setting)]
    with signals_wait():
        _dvc("exp", "run", "--queue", "--name", name, *changes, *targets)


def reproduce(targets: Sequence[str], *, allow_missing: bool) -> None:
    """Bring stages of the workspace up to date; what they were made of may be gone if allowed."""
    _dvc("repro", *(["--allow-missing"] if allow_missing else []), *targets)


def forget(names: Collection[str]) -> None:
    """Take failed and lost tasks off the queue, so that their names are free again.

    A task is lost whose workers are gone: those of a machine that was switched off, for example.
    """
    now = status()
    lost = {name for name in names if now.tasks.get(name) == "Running"}
    for _ in range(NO_WORKERS):
        if lost and status().workers:
            lost = set()
    if lost:
        _dvc("queue", "kill", "--force", *sorted(lost))
    failed = {name for name in names if now.tasks.get(name) == "Failed"}
    if lost or failed:
        _dvc("queue", "remove", *sorted(lost | failed))


def start(jobs: int) -> None:
    """Have ``jobs`` processes work on the queue in the background, until it is empty."""
    _dvc("queue", "start", "--jobs", str(jobs))


def stop(names: Collection[str]) -> None:
    """Stop the workers and those of these experiments that run; what is queued stays queued.

    Signals wait meanwhile: half of it would leave workers running that nobody watches.
    """
    with signals_wait():
        # Not `queue stop --kill`: a worker whose task is killed takes the next before it hears.
        _dvc("queue", "stop")
        time.sleep(SETTLE_S)
        tasks = status().tasks
        if running := [name for name in names if tasks.get(name) == "Running"]:
            _dvc("queue", "kill", "--force", *running)


def watch(names: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Yield each experiment as it ends, with whether it succeeded, until all have.

    Raises UserError where nobody works on those that are left.
    """
    waiting, turn, alone = set(names), 0, 0
    while waiting:
        failed: set[str] = set()
        if turn % STATUS_EVERY == STATUS_EVERY - 1:
            now = status()
            failed = {name for name in waiting if now.tasks.get(name) == "Failed"}
            alone = 0 if now.workers else alone + 1
        ended = waiting & finished().keys()
        for name in sorted(ended | failed):
            yield name, name in ended
        waiting -= ended | failed
        if waiting and alone == NO_WORKERS:
            raise UserError(
                f"DVC's queue stopped with {len(waiting)} experiments left, {min(waiting)} for "
                "one; the same command goes on. (`dvc queue status` shows the queue.)"
            )
        if waiting:
            time.sleep(POLL_S)
        turn += 1


def _dvc(*arguments: str) -> str:
    return _output(sys.executable, "-m", "dvc", *arguments)


def _output(*command: str) -> str:
    # Into files: `dvc queue start` leaves its workers the writing end, and a pipe's reader would
    # wait for them. In a session of its own, since Ctrl-C is for who waits, not for the workers.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
        )
        out.seek(0)
        errors.seek(0)
        said, complaint = out.read(), errors.read()
    if done.returncode:
        lines = (complaint or said).strip().splitlines() or [f"status {done.returncode}"]
        # What a stage says of its own is more than what DVC says of the stage.
        signs = ("error: ", "ERROR: ")
        told = (line[len(sign) :] for sign in signs for line in lines if line.startswith(sign))
        program = command[2:] if command[0] == sys.executable else command
        raise UserError(f"`{' '.join(program[:3])}` fails: {next(told, lines[-1])}")
    return said
