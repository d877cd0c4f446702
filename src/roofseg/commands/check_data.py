"""Read every tile of a dataset and list what is wrong with it.

Prints a table of the tiles of data/NAME: split, size, GSD, CRS, share of buildings and of black
pixels. Warnings, which need a look but stop nothing, go to stderr.

Exit status: 0 no problems; 2 problems, all listed in one message; 129, 130, 143 stopped.
"""

from __future__ import annotations

import argparse
import sys

from roofseg.commands.arguments import number
from roofseg.commands.project import DATA
from roofseg.intake.inspect import (
    MAX_EXPANSION,
    check_name,
    inspect_dataset,
    raise_all,
    system_errors_named,
    table,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a folder in data/")
    add_max_expansion(parser)


def add_max_expansion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-expansion",
        type=number(0),
        default=MAX_EXPANSION,
        metavar="FACTOR",
        help="refuse a file whose pixels take more than FACTOR times its size and over 1 GiB, as a "
        f"damaged file or a decompression bomb (default {MAX_EXPANSION})",
    )


def main(args: argparse.Namespace) -> None:
    check_name(args.name)
    folder = DATA / args.name
    with system_errors_named():
        report = inspect_dataset(folder, max_expansion=args.max_expansion)
    print(table(report))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    raise_all(report.problems)
    print(f"{folder}: {len(report.tiles)} tiles, no problems")
