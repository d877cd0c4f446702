"""The command `roofseg`: its subcommands, and how their errors end the process.

Exit status 0: done; 2: an error that the user can fix, with one message on stderr; 129, 130, 141
and 143: stopped by a closed terminal, Ctrl-C, a closed pipe on stdout, or SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

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
from roofseg.version import VERSION

COMMANDS = {
    "new-dataset": new_dataset,
    "check-data": check_data,
    "profile": profile,
    "train-all": train_all,
    "finalize": finalize,
    "studies": studies,
    "tune": tune,
    "tuning-report": tuning_report,
    "predict": predict,
    "export": export,
}
READ_TILES = {"new-dataset", "check-data", "predict"}  # tiles and test are sealed to all others
RUN_ANYWHERE = {"predict", "export"}  # all others work on the project in the current folder
STOPS = (signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: those of the process)."""
    args = make_parser().parse_args(arguments)
    # As after Ctrl-C, blocks are left in order: half-written files are removed.
    for each in STOPS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # `nohup` has a signal ignored
            signal.signal(each, _stop)
    try:
        with entry_point(
            f"roofseg {args.command}", project=Path(), reads_tiles=args.command in READ_TILES
        ):
            if args.command not in RUN_ANYWHERE:
                check_project_folder()
            try:
                args.main(args)
                sys.stdout.flush()
            except BrokenPipeError:  # `roofseg predict ... | head`
                # Python flushes stdout again when it exits, which must not fail.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        _stop(signal.SIGINT, None)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; ``main`` of its result is the function to call with it."""
    parser = argparse.ArgumentParser(
        prog="roofseg",
        description="Maps of roofs from imagery: datasets, recipes, training, studies and maps.",
    )
    parser.add_argument("--version", action="version", version=f"roofseg {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        summary, _, details = (command.__doc__ or "").partition("\n")
        own = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=details.strip("\n"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(main=command.main)
    return parser


def _stop(number: int, frame: object) -> NoReturn:
    print("stopped: the same command goes on with what is not finished", file=sys.stderr)
    sys.exit(128 + number)
