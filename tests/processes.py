"""Start processes and wait for what they do: without a deadline, and leaving none behind.

A busy machine takes any time, so only pytest-timeout ends a wait that lasts for ever. It raises in
the test, and the processes that the test started are killed on the way out.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


def wait_until(true: Callable[[], T], alive: Callable[[], object] = lambda: True) -> T:
    """Wait until ``true()`` is, and return it; fail once ``alive()`` is not.

    ``alive`` says whether the process that should make it true still runs.
    """
    while True:
        running = alive()  # asked first: it may make it true and then end
        if found := true():
            return found
        assert running, "the process that should make it true has ended"
        time.sleep(0.02)


@contextmanager
def started(command: Sequence[object] | str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process with text streams; if it still runs at the end, it is killed with its children."""
    words = command if isinstance(command, str) else list(map(str, command))
    with subprocess.Popen(words, text=True, **options) as process:
        try:
            yield process
        finally:
            kill_family(process)


def kill_family(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children, and theirs, unless it has ended."""
    if process.poll() is not None:
        return
    parent = psutil.Process(process.pid)
    for member in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            member.kill()
