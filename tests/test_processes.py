"""The helpers that wait for processes: a hanging child does not outlive its test."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest
from processes import started, wait_until

# A process in a session of its own, below a shell, that ignores SIGTERM.
HANGS = f"""\
trap '' TERM
{shlex.quote(sys.executable)} -c '
import os, signal, time
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
while True: time.sleep(1)
'
exit 1
"""


class _TimeoutError(Exception):
    """As pytest-timeout raises it in the test."""


def test_a_hanging_process_is_killed_with_its_children() -> None:
    pids: list[int] = []

    def hang() -> None:
        with started(["sh", "-c", HANGS], stdout=PIPE) as process:
            assert process.stdout
            pids.append(int(process.stdout.readline()))
            raise _TimeoutError

    with pytest.raises(_TimeoutError):
        hang()
    wait_until(lambda: is_gone(pids[0]))


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_wait_ends_with_what_it_waits_for(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with started(["touch", path]) as process:
        wait_until(path.exists, lambda: process.poll() is None)
    with (
        started(["true"]) as process,
        pytest.raises(AssertionError, match="has ended"),
    ):
        wait_until((tmp_path / "nosuch").exists, lambda: process.poll() is None)
