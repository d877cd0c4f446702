"""Read every tile of a dataset and list what is wrong with it.

Prints a table of the tiles of data/NAME: split, size, GSD, CRS, share of building pixels and of
black pixels. All problems are listed in one message; with any problem the exit status is 2.
Warnings (oddities that may be mistakes) go to stderr and do not change the exit status.
"""

from __future__ import annotations

import argparse

from roofseg.commands.arguments import number
from roofseg.commands.project import DATA
from roofseg.core.errors import raise_all
from roofseg.core.progress import track
from roofseg.core.terminal import warn
from roofseg.intake.inspect import MAX_EXPANSION, check_name, inspect_dataset, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the dataset: a folder in data/")
    add_max_expansion(parser)


def add_max_expansion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-expansion",
        type=number(0),
        default=MAX_EXPANSION,
        metavar="FACTOR",
        help="refuse a file, as damaged or a decompression bomb, if its pixels take over 1 GiB and "
        "more than FACTOR times its size (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> None:
    check_name(args.name)
    folder = DATA / args.name
    report = inspect_dataset(folder, max_expansion=args.max_expansion, progress=track)
    print(table(report))
    for warning in report.warnings:
        warn(warning)
    raise_all(report.problems)
    print(f"{folder}: {len(report.tiles)} tiles, no problems")
