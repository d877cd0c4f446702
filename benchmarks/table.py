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

from stages import ROOT

ROUNDS = 5

Run = Callable[[], float | None]


@dataclass(frozen=True)
class Row:
    """A line of the table, as text; ``met`` says whether the target is met, None for no target."""

    what: str
    against: str
    reach: str
    ours: str
    baseline: str
    ratio: str
    met: bool | None

    def __str__(self) -> str:
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        cells = (self.what, self.against, self.reach, self.ours, self.baseline, self.ratio, met)
        return f"| {' | '.join(cells)} |"


def heading() -> str:
    """The table's first two lines."""
    return (
        "| what | against | reach | ours | baseline | ratio | met |\n"
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
    what: str, against: str, ours: Sequence[float], plain: Sequence[float], reach: float | None
) -> Row:
    """A row that shows how many times as fast as the baseline ours is; ``reach`` None: no "
    "target."""
    times = median_ratio(plain, ours)
    return Row(
        what,
        against,
        "" if reach is None else "faster" if reach == 1 else f"{reach:g}x faster",
        *(f"{statistics.median(each):.3g} s" for each in (ours, plain)),
        f"{times:.2f}x",
        None if reach is None else times >= reach,
    )


def dearer(
    what: str, against: str, ours: Sequence[float], bare: Sequence[float], percent: float
) -> Row:
    """How much more time than the least that it could take."""
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
    """The median of the rounds' ratios: a slow phase of the machine affects both runs of a "
    "round."""
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
