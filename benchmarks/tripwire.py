"""Opening a file under the tripwire (`roofseg.core.guard`), in processes of their own."""

from __future__ import annotations

from benchmarks.table import Row, alternate, child, faster

CODE = """
import sys, time; from pathlib import Path; from roofseg.core import guard
if sys.argv[1:]: guard.seal([Path('patches/test')], 'benchmark')
start = time.perf_counter()
for _ in range(20_000): open(guard.__file__).close()
print(time.perf_counter() - start)
"""


def rows() -> list[Row]:
    def sealed() -> float:
        return float(child("-c", CODE, "sealed"))

    def plain() -> float:
        return float(child("-c", CODE))

    what = "opening a file 20,000 times under the tripwire"
    return [faster(what, "without it", *alternate(sealed, plain), reach=None)]
