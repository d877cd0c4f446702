"""Times of alternating runs, and the table that puts their ratios beside the targets."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stages import ROOT

ROUNDS = 5

Run = Callable[[], float | None]


@dataclass(frozen=True)
class Row:
    """A line of the table, as text; ``met`` says whether the target is met, None for no target."""

    what: str
    against: str
    target: str
    ours: str
    baseline: str
    ratio: str
    met: bool | None

    def __str__(self) -> str:
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        cells = (self.what, self.against, self.target, self.ours, self.baseline, self.ratio, met)
        return f"| {' | '.join(cells)} |"


def heading() -> str:
    """The table's first two lines."""
    return (
        "| what | against | target | ours | baseline | ratio | met |\n"
        "| --- | --- | --- | ---: | ---: | ---: | --- |"
    )


def alternate(*runs: Run, rounds: int = ROUNDS, warm_up: int = 1) -> list[list[float]]:
    """The seconds of each run, per round; a run that returns a number has timed itself.

    The runs alternate, so that drifts in the machine's speed affect all of them.
    """
    times: list[list[float]] = [[] for _ in runs]
    for round_ in range(warm_up + rounds):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            seconds = run()
            if round_ >= warm_up:
                taken.append(time.perf_counter() - start if seconds is None else seconds)
    return times


def faster(
    what: str, against: str, ours: Sequence[float], plain: Sequence[float], target: float | None
) -> Row:
    """A row that shows how many times faster ours is; no target if ``target`` is None."""
    times = median_ratio(plain, ours)
    return Row(
        what,
        against,
        "" if target is None else "faster" if target == 1 else f"{target:g}x faster",
        *(f"{statistics.median(each):.3g} s" for each in (ours, plain)),
        f"{times:.2f}x",
        None if target is None else times >= target,
    )


def slower(
    what: str, against: str, ours: Sequence[float], bare: Sequence[float], percent: float
) -> Row:
    """A row that shows by how many per cent ours is slower than the least possible time."""
    more = 100 * (median_ratio(ours, bare) - 1)
    return Row(
        what,
        against,
        f"at most {percent:g} % more",
        *(f"{statistics.median(each):.3g} s" for each in (ours, bare)),
        f"{more:+.1f} %",
        more <= percent,
    )


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' ratios: a slow phase of the machine affects a whole round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def machine() -> str:
    """Describe this machine."""
    import torch

    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} x {cpu}{gpu}, torch {torch.__version__}"


def child(*command: str) -> str:
    """Run Python with this checkout's packages; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.check_output([sys.executable, *command], env=environment, text=True)


@dataclass(frozen=True)
class Measured:
    """Seconds of each round, and the peak memory of any, in MB (10^6 bytes)."""

    seconds: list[float]
    peak_mb: float


def ours_and_plain(module: str, path: Path, **rounds: int) -> tuple[Measured, Measured]:
    """Alternate the functions `ours` and `plain` of a benchmark's module, each on ``path``.

    Each run has a process of its own, so that its peak memory is its own. The module calls
    `measure_one`, if it is run as a program.
    """
    peaks: dict[str, list[float]] = {"ours": [], "plain": []}

    def run(how: str) -> float:
        seconds, peak = map(float, child("-m", module, how, str(path)).split()[-2:])
        peaks[how].append(peak)
        return seconds

    times = alternate(partial(run, "ours"), partial(run, "plain"), **rounds)
    ours, plain = (Measured(each, max(peaks[how])) for each, how in zip(times, peaks, strict=True))
    return ours, plain


def measure_one(ours: Callable[[Path], float], plain: Callable[[Path], float]) -> None:
    """Run the function that the command line names, and print its seconds and peak memory."""
    how, path = sys.argv[1:]
    seconds = {"ours": ours, "plain": plain}[how](Path(path))
    print(seconds, peak_mb())


def peak_mb() -> float:
    """Peak memory of this process; getrusage would include its parent's at the fork."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return float("nan")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
