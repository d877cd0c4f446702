"""`dvc repro --force` again, with real DVC: every output has the hash that it had.

`make prove-repeatable` runs this, with the sample's tiles too, and prints the outputs compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import TABLES, TIMES, Project
from ruamel.yaml import YAML

# Times are of the run. Tables that show some are compared without them; pages and pictures are not.
MEASURED = [
    "seconds_per_epoch",
    "minutes",
    "peak_memory_gb",
    "inference_megapixels_per_second",
    "iou_per_hour",
]


def hashes(*locks: Path) -> dict[str, str]:
    """The hash of every output in these dvc.lock files."""
    found = {}
    for lock in locks:
        stages = YAML(typ="safe").load(lock.read_text())["stages"]
        for stage in stages.values():
            found |= {f"{lock.parent.name}/{out['path']}": out["md5"] for out in stage["outs"]}
    return found


def without_times(project: Project) -> tuple[str, Any]:
    """The leaderboard for programs, in both forms, without the times."""
    metrics = project.folder / "metrics"
    csv = pd.read_csv(metrics / "leaderboard.csv").drop(columns="minutes")
    board = json.loads((metrics / "leaderboard.json").read_text())
    for row in board["attempts"]:
        del row["minutes"]
        for name in MEASURED:
            del row["costs"][name]
    return csv.to_csv(), board


def compare(before: dict[str, str], after: dict[str, str]) -> int:
    """Assert that outputs are what they were, print them, and give their number."""
    assert before.keys() == after.keys()
    compared = [name for name in before if not name.endswith((*TIMES, *TABLES))]
    for name in compared:
        print(f"{'same ' if before[name] == after[name] else 'OTHER'}  {after[name]:36}  {name}")
    assert {name: before[name] for name in compared} == {name: after[name] for name in compared}
    return len(compared)


@pytest.mark.whole
def test_a_forced_repro_gives_the_same_bytes(finished: Project, tmp_path: Path) -> None:
    """`dvc repro --force` gives every output again, to the byte (times aside)."""
    project = finished.copy(tmp_path / "project")
    locks = [project.folder / name / "dvc.lock" for name in (".", "weights")]
    before, board = hashes(*locks), without_times(project)
    project.run("dvc repro --force")
    assert compare(before, hashes(*locks)) >= 20
    assert without_times(project) == board


@pytest.mark.slow
def test_the_generated_tiles_are_the_same_bytes(tmp_path: Path) -> None:
    """The sample's tiles, generated twice, are the same to the byte."""
    project = Project.create(tmp_path / "project")
    project.replace("params.yaml", "generated: []", "generated: [sample]")
    lock = project.folder / "data" / "dvc.lock"
    project.run("dvc repro data/dvc.yaml:generate@sample")
    before = hashes(lock)
    project.run("dvc repro --force data/dvc.yaml:generate@sample")
    assert compare(before, hashes(lock)) >= 2
