"""Measure everything and write benchmarks/results.md: ``python -m benchmarks``.

``python -m benchmarks SUBJECT ...`` measures some subjects and only prints the rows;
``python -m benchmarks profile ATTEMPT ...`` shows which parts of an epoch take how long.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from benchmarks import profile
from benchmarks.subjects import SUBJECTS, measure
from benchmarks.table import heading, machine
from roofseg.core.files import write_text
from stages import ROOT, run


def main() -> None:
    if sys.argv[1:2] == ["profile"]:
        profile.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"some of {', '.join(SUBJECTS)} (default: all)")
    chosen = parser.parse_args().subjects
    lines = [
        "# Speed",
        "",
        f"Medians of runs that alternate, on {machine()}. Written by `make bench`.",
        "",
        heading(),
    ]
    print(*lines, sep="\n", flush=True)
    # A process for each subject: settings that training makes for its process would speed up the
    # plain baseline of the next subject.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for rows in pool.map(measure, chosen or SUBJECTS):
            for row in rows:
                lines.append(str(row))
                print(row, flush=True)
    if not chosen:
        write_text(ROOT / "benchmarks" / "results.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    run(main)
