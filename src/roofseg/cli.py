"""The command `roofseg`: its subcommands, their help, and how their errors end the process."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from roofseg.commands import (
    check_data,
    export,
    finalize,
    new_dataset,
    predict,
    profile,
    studies,
    train_all,
    tune,
    tuning_report,
)
from roofseg.commands.project import check_project_folder
from roofseg.core.entry_point import entry_point
from roofseg.core.signals import exit_on_stop
from roofseg.core.terminal import ArgumentParser
from roofseg.version import VERSION

GROUPS = {
    "Data": {"new-dataset": new_dataset, "check-data": check_data, "profile": profile},
    "Train and compare": {
        "train-all": train_all,
        "finalize": finalize,
        "studies": studies,
        "tune": tune,
        "tuning-report": tuning_report,
    },
    "Use a model": {"predict": predict, "export": export},
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
READ_TILES = {"new-dataset", "check-data", "predict"}  # other commands cannot open tiles or test
RUN_ANYWHERE = {"predict", "export"}  # other commands need a project in the current folder
ABOUT = "Map roofs in aerial imagery: make datasets, train and compare models, predict."
FIRST = (
    "First, in a clone of the repository, `make repro` runs the pipeline from tiles to report, and "
    "metrics/leaderboard.md ranks the models. Then bring your own tiles with `roofseg "
    "new-dataset`, or map roofs with `roofseg predict`. `roofseg COMMAND --help` describes a "
    "command."
)
EXIT_STATUS = (
    "Exit status: 0 done; 2 an error, explained by a message; 129, 130, 141 or 143 stopped by a "
    "closed terminal, Ctrl-C, a closed pipe or SIGTERM."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: those of the process)."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return
    exit_on_stop()
    reads_tiles = args.command in READ_TILES
    with entry_point(f"roofseg {args.command}", project=Path(), reads_tiles=reads_tiles):
        if args.command not in RUN_ANYWHERE:
            check_project_folder()
        try:
            args.main(args)
            sys.stdout.flush()
        except BrokenPipeError:  # `roofseg predict ... | head`
            # Python flushes stdout again when it exits, which must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; call ``args.main(args)`` with the ``args`` it returns.

    A subcommand's help shows its module's docstring: the first line, the options, then the rest.
    """
    lists = (
        "\n".join([title, *(f"  {name:13}  {_summary(group[name])[0]}" for name in group)])
        for title, group in GROUPS.items()
    )
    parser = _Parser(
        prog="roofseg",
        usage="roofseg COMMAND ...",
        description="\n\n".join([ABOUT, *lists]),
        epilog=f"{FIRST}\n\n{EXIT_STATUS}",
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"roofseg {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", help=argparse.SUPPRESS)
    for name, command in COMMANDS.items():
        summary, details = _summary(command)
        own = commands.add_parser(
            name,
            prog=f"roofseg {name}",
            description=summary,
            epilog="\n\n".join([details.strip("\n"), EXIT_STATUS]),
            formatter_class=_HelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(main=command.main)
    return parser


def _summary(command: ModuleType) -> tuple[str, str]:
    """The first line of a command's docstring, and the rest."""
    summary, _, details = (command.__doc__ or "").partition("\n")
    return summary, details


class _Parser(ArgumentParser):
    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse unknown arguments here: argparse would name the help of the main parser."""
        namespace, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps paragraphs to the terminal's width; keeps those with indented lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            paragraph
            if paragraph.startswith(" ") or "\n " in paragraph
            else textwrap.fill(" ".join(paragraph.split()), width, break_on_hyphens=False)
            for paragraph in text.split("\n\n")
        )
