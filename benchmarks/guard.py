"""The cost of the guard (`roofseg.core.guard`) per opened file; each run has its own process."""

from __future__ import annotations

from benchmarks.table import Row, alternate, child, faster

CODE = """
import sys, time; from pathlib import Path; from roofseg.core import guard
if sys.argv[1:]: guard.install_guard([Path('patches/test')], 'benchmark')
start = time.perf_counter()
for _ in range(20_000): open(guard.__file__).close()
print(time.perf_counter() - start)
"""


def rows() -> list[Row]:
    def guarded() -> float:
        return float(child("-c", CODE, "guarded"))

    def plain() -> float:
        return float(child("-c", CODE))

    what = "opening a file 20,000 times under the guard"
    return [faster(what, "without it", *alternate(guarded, plain), target=None)]
