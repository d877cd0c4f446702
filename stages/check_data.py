"""Read all of a dataset and list what is wrong with it: ``python -m stages.check_data NAME``.

Prints a table of its tiles. The exit status is 2 if there are problems, 0 if not; warnings are for
the eye.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from roofseg.intake.inspect import (
    MAX_EXPANSION,
    check_name,
    inspect_dataset,
    raise_all,
    system_errors_named,
    table,
)
from stages import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.check_data", description=__doc__)
    parser.add_argument("name", help="of a folder in data/")
    parser.add_argument(
        "--max-expansion",
        type=float,
        default=MAX_EXPANSION,
        help=f"what a file's pixels may be, times its size, beyond 1 GiB (default {MAX_EXPANSION})",
    )
    asked = parser.parse_args()
    check_name(asked.name)
    folder = Path("data") / asked.name
    with system_errors_named():
        report = inspect_dataset(folder, max_expansion=asked.max_expansion)
    print(table(report))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    raise_all(report.problems)
    print(f"{folder}: {len(report.tiles)} tiles, no problems")


if __name__ == "__main__":
    run(main, reads_tiles=True)
