"""The command `roofseg`: its subcommands, and what becomes of their mistakes.

Exit status 0: done; 2: a mistake that the user can mend, told in one message on stderr; 129, 130,
141 and 143: stopped by a lost terminal, Ctrl-C, a reader of its output that is gone, or SIGTERM.
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
    """Run the command that ``arguments`` say (those of the process unless told)."""
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
    # What is half-written is removed on the way out, as after Ctrl-C.
    for each in STOPS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(each, _stopped)
    try:
        args.main(args)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except BrokenPipeError:  # `roofseg predict ... | head`
        # Or Python would tell of the same at its end, where it flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.filename is None:
            raise
        print(
            f"error: {error.filename}: {error.strerror}. Mend its permissions or those of its "
            "folders, or name another.",
            file=sys.stderr,
        )
        sys.exit(UserError.status)
    except KeyboardInterrupt:
        _stopped(signal.SIGINT, None)


def _stopped(number: int, frame: object) -> NoReturn:
    print("stopped: the same command goes on with what is not finished", file=sys.stderr)
    sys.exit(128 + number)
