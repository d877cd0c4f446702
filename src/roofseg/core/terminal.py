"""Errors and warnings on stderr, in one look; colours and wrapped lines are for terminals only."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console


def terminal() -> Console | None:
    """The terminal that stderr is; None for a file, a pipe, and a terminal that cannot draw.

    It heeds NO_COLOR. All output to it goes through this one console: a line that is printed while
    `roofseg.core.progress` draws a bar then appears above the bar.
    """
    if not sys.stderr.isatty():
        return None
    console = _console()
    return None if console.is_dumb_terminal else console


@cache
def _console() -> Console:
    from rich.console import Console  # not needed without a terminal

    return Console(stderr=True, force_terminal=True, highlight=False, markup=False, emoji=False)


def print_error(message: str) -> None:
    """Print ``error: MESSAGE``."""
    _print("error:", "bold red", message)


def warn(message: str) -> None:
    """Print ``warning: MESSAGE``."""
    _print("warning:", "bold yellow", message)


def _print(word: str, style: str, message: str) -> None:
    if console := terminal():
        from rich.text import Text

        console.print(Text.assemble((word, style), f" {message}"))
    else:
        print(word, message, file=sys.stderr)


class ArgumentParser(argparse.ArgumentParser):
    """Reports wrong arguments as other errors, in one line without the usage."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}. See `{self.prog} --help`.")
        sys.exit(2)
