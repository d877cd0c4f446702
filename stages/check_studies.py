"""Check all of studies/studies.yaml against params.yaml and the split, before anything trains.

What it writes is always the same: nothing reruns after it.
"""

from __future__ import annotations

from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.recipe.split import read_split
from stages import run
from stages.studies import RESULTS, STUDIES, read_studies


def main() -> None:
    studies, params = read_studies()
    split = read_split(Path("data") / params.dataset)
    there = list(split.values()).count("train")
    for count in studies.studies.budget.tiles:
        if count > there:
            raise UserError(
                f"{STUDIES}: studies.budget.tiles: found {count}; expected at most {there}, the "
                f"training tiles of dataset {params.dataset}"
            )
    write_json(RESULTS / "check.json", {STUDIES.as_posix(): "valid"})


if __name__ == "__main__":
    run(main)
