"""Startup times: imports of the stages, and `dvc repro` with nothing to do."""

from __future__ import annotations

import statistics
import subprocess
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.table import Row, alternate, child
from stages import ROOT

ROUNDS = 3
NEED_TORCH = {"check_params", "evaluate", "study_run", "train"}  # they build models
STACK = "torch, lightning, segmentation_models_pytorch"
CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
UP_TO_DATE = "Data and pipelines are up to date."


def rows() -> list[Row]:
    return [*imports(), repro()]


def imports() -> list[Row]:
    files = (ROOT / "stages").glob("[!_]*.py")  # files that begin with _ are no stages
    names = sorted(path.stem for path in files)

    def importing(modules: str) -> float:
        return float(child("-c", CODE.format(modules)))

    modules = [STACK, *(f"stages.{name}" for name in names)]
    stack, *times = alternate(*(partial(importing, each) for each in modules), rounds=ROUNDS)
    more = {
        name: statistics.median(a - b for a, b in zip(each, stack, strict=True))
        for name, each in zip(names, times, strict=True)
        if name in NEED_TORCH
    }
    alone = {
        name: statistics.median(each)
        for name, each in zip(names, times, strict=True)
        if name not in NEED_TORCH
    }
    slowest, longest = max(more, key=more.__getitem__), max(alone, key=alone.__getitem__)
    base = statistics.median(stack)
    return [
        Row(
            f"import of a stage that needs torch, the slowest of {len(more)}: {slowest}",
            f"importing {STACK} alone",
            "at most 1 s more",
            f"{base + more[slowest]:.2f} s",
            f"{base:.2f} s",
            f"{more[slowest]:+.2f} s",
            more[slowest] <= 1,
        ),
        Row(
            f"import of a stage that needs no torch, the slowest of {len(alone)}: {longest}",
            "",
            "under 1 s",
            f"{alone[longest]:.2f} s",
            "",
            "",
            alone[longest] < 1,
        ),
    ]


def repro() -> Row:
    """Time `dvc repro` in this checkout, or in a clone (without data) if this one is outdated.

    With --dry it makes the same checks, and runs nothing if a stage is outdated.
    """
    what, target = "`dvc repro` with nothing to do", "under 6 s"
    with TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        places = {"in this checkout": (ROOT, ()), "in a clone": (folder, ("--allow-missing",))}
        for place, (where, options) in places.items():
            try:
                (times,) = alternate(partial(dry_run, Path(where), *options), rounds=ROUNDS)
            except NotUpToDateError:
                continue
            seconds = statistics.median(times)
            return Row(f"{what}, {place}", "", target, f"{seconds:.2f} s", "", "", seconds < 6)
    return Row(f"{what}: not measured, dvc.lock is not up to date", "", target, "", "", "", None)


def dry_run(where: Path, *options: str) -> None:
    command = ["dvc", "repro", "--dry", *options]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True)
    if done.returncode or UP_TO_DATE not in done.stdout:
        raise NotUpToDateError(done.stdout + done.stderr)


class NotUpToDateError(Exception):
    """A stage would run."""
