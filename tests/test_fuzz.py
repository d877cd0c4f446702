"""Damaged files of five formats are read or refused, without traceback, crash, hang or remains.

`pytest -m slow tests/test_fuzz.py` prints the figures.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from subprocess import PIPE

import pytest
from fuzzing import SUFFIXES
from graph import ROOT
from processes import started

FILES = 800  # damaged files of each format


def tried(kind: str, count: int, folder: Path) -> tuple[Counter[tuple[str, str]], dict[int, str]]:
    """Try damaged files: how many were read or refused by each command, and what else happened.

    They are tried in another process, in which GDAL may crash; the next one goes on after the file.
    """
    counts: Counter[tuple[str, str]] = Counter()
    failed: dict[int, str] = {}
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    first = 0
    while first < count:
        seed = None
        folder.mkdir(parents=True)
        script = ROOT / "tests" / "fuzzing.py"
        with (
            (folder / "stderr").open("w") as errors,
            started(
                [sys.executable, script, kind, first, count, folder / "files"],
                env=environment,
                stdout=PIPE,
                stderr=errors,
            ) as child,
        ):
            assert child.stdout
            for line in child.stdout:
                told = json.loads(line)
                seed = told["seed"]
                for command, outcome in told.get("outcomes", {}).items():
                    if outcome in ("read", "refused"):
                        counts[command, outcome] += 1
                    else:
                        failed[seed] = f"{command}: {outcome}"
        if child.returncode:
            said = (folder / "stderr").read_text(errors="replace")[-2000:]
            assert seed is not None, said  # it did not begin
            failed[seed] = f"status {child.returncode}: {said}"
            first = seed + 1
            folder = folder.with_name(f"after {seed}")
        else:
            first = count
    return counts, failed


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUFFIXES)
def test_damaged_files(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts, failed = tried(kind, FILES, tmp_path / "first")
    figures = ", ".join(
        f"{command} {outcome} {n}" for (command, outcome), n in sorted(counts.items())
    )
    with capsys.disabled():
        print(f"\n{FILES} damaged {kind} files: {figures}; failed: {len(failed)}")
    assert not failed, "\n".join(f"{kind} {seed}: {what}" for seed, what in failed.items())


@pytest.mark.whole
def test_a_few_damaged_files(tmp_path: Path) -> None:
    counts, failed = tried("GeoTIFF", 30, tmp_path / "first")
    assert not failed
    assert {outcome for _, outcome in counts} == {"read", "refused"}
