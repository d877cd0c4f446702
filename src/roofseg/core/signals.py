"""The signals that stop a process, and its clean end after one of them."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from roofseg.core.terminal import print_error

# Ctrl-C, `kill`, and the end of the terminal, the notebook or the connection.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_signals() -> list[signal.Signals]:
    """`STOP_SIGNALS` without those that this process ignores: `nohup` ignores SIGHUP."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def exit_on_stop() -> None:
    """From now on, a stop signal prints one line and raises SystemExit.

    So open blocks are left cleanly: half-written files are removed. The exit status is 128 plus the
    number of the signal, as in a shell.
    """
    for number in stop_signals():
        signal.signal(number, _exit)


def _exit(number: int, frame: object) -> NoReturn:
    name = signal.Signals(number).name
    print_error(f"stopped by {name}; run the same command again to continue")
    sys.exit(128 + number)
