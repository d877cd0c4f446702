"""The command `roofseg`: its subcommands, and how it reports their errors.

Exit status 0: done; 2: an error that the user can fix, with one message on stderr; 129, 130, 141
and 143: stopped by a closed terminal, Ctrl-C, a closed pipe on stdout, or SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from roofseg.commands import export, predict, tune, tuning_report
from roofseg.core.errors import UserError
from roofseg.version import VERSION

COMMANDS = {
    "predict": predict,
    "export": export,
    "tune": tune,
    "tuning-report": tuning_report,
}
STOPS = (signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in ``arguments`` (default: those of the process)."""
    parser = argparse.ArgumentParser(prog="roofseg", description="Maps of roofs from imagery.")
    parser.add_argument("--version", action="version", version=f"roofseg {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        summary, _, more = (command.__doc__ or "").partition("\n")
        own = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=more.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(main=command.main)
    args = parser.parse_args(arguments)
    # As an exception, a signal lets open blocks remove half-written files.
    for each in STOPS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as under `nohup`
            signal.signal(each, _stopped)
    try:
        args.main(args)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except BrokenPipeError:  # `roofseg predict ... | head`
        # Python flushes stdout again when it exits, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.filename is None:
            raise
        print(
            f"error: {error.filename}: {error.strerror}. Change its permissions or those of its "
            "folders, or use another path.",
            file=sys.stderr,
        )
        sys.exit(UserError.status)
    except KeyboardInterrupt:
        _stopped(signal.SIGINT, None)


def _stopped(number: int, frame: object) -> NoReturn:
    print("stopped: the same command continues with the unfinished outputs", file=sys.stderr)
    sys.exit(128 + number)
