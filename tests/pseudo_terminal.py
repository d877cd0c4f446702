"""Run a command in a pseudo-terminal, as a user sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from graph import ROOT
from processes import started

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CTRL_C = b"\x03"


def run_in_terminal(
    *command: str,
    cwd: Path,
    interrupt: Callable[[str], bool] = lambda shown: False,
    **variables: str,
) -> tuple[int, str]:
    """Run ``python COMMAND`` in a terminal of 80 columns; returns its status and raw output.

    Once ``interrupt`` is true for the output so far, Ctrl-C is typed. ``variables`` are added to
    the environment.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in UNSET}
    with started(
        [sys.executable, *command],
        cwd=cwd,
        env={**environment, "TERM": "xterm-256color", "PYTHONPATH": PATH, **variables},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # where Ctrl-C comes from
    ) as process:
        os.close(slave)
        shown, typed = b"", False
        try:
            while part := os.read(master, 2**16):
                shown += part
                if not typed and interrupt(shown.decode(errors="replace")):
                    os.write(master, CTRL_C)
                    typed = True
        except OSError:  # the terminal's other end is closed
            pass
        finally:
            os.close(master)
        return process.wait(), shown.decode()


UNSET = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES")
PATH = os.pathsep.join(map(str, (ROOT, ROOT / "src")))


def lines_of(shown: str) -> list[str]:
    """All lines that were ever on the terminal, redrawn ones too, without escape codes."""
    return [line for line in re.split(r"[\r\n]+", ESCAPE.sub("", shown)) if line]


def screen(shown: str) -> list[str]:
    """The lines that stay on the terminal: interprets the codes that rich uses to redraw lines."""
    lines, row, column = [""], 0, 0
    for code, character in re.findall(rf"({ESCAPE.pattern})|([\s\S])", shown):
        if code.endswith("A"):
            row -= int(code[2:-1] or 1)
        elif code.endswith("K"):
            lines[row] = ""
        elif character == "\r":
            column = 0
        elif character == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif character:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]
