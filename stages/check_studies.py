"""Check all of studies/studies.yaml against params.yaml and the split, before anything trains.

The output is always the same, so that a change of studies.yaml alone reruns no run of a study.
"""

from __future__ import annotations

from pathlib import Path

from roofseg.core.files import write_json
from roofseg.recipe.split import read_split
from roofseg.studies.declaration import SOURCE, check_budget
from stages import run
from stages._studies import RESULTS, studies_in_force


def main() -> None:
    studies, params = studies_in_force()
    check_budget(studies, read_split(Path("data") / params.dataset))
    write_json(RESULTS / "check.json", {SOURCE: "valid"})


if __name__ == "__main__":
    run(main)
