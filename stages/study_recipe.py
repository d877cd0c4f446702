"""The recipes of an attempt in the studies that train it: ``python -m stages.study_recipe NAME``.

They stand between params.yaml and the runs of a study: a run depends on its recipe, not on all that
is written there, and so is trained anew only when that changes.
"""

from __future__ import annotations

import argparse

from roofseg.core.files import atomic_write, sha256_file, write_json
from roofseg.studies.declaration import overridden
from stages import run
from stages.studies import RECIPES, STUDIES, read_studies
from stages.training import prior_file


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.study_recipe", description=__doc__)
    parser.add_argument("attempt", help="its name in params.yaml or studies.yaml")
    attempt = parser.parse_args().attempt
    studies, params = read_studies()
    prior = sha256_file(prior_file(params.recipe(attempt)))
    own = {name: study for name, study in studies.named().items() if attempt in study.attempts}
    with atomic_write(RECIPES / attempt) as folder:
        write_json(folder / "studies.json", list(own))  # DVC warns of a folder that is empty
        for name, study in own.items():
            recipe = overridden(params, attempt, study.overrides, source=str(STUDIES))
            record = {
                "study": name,
                "attempt": attempt,
                "overrides": study.overrides,
                "recipe": recipe.model_dump(mode="json"),
                "prior_sha256": prior,
            }
            write_json(folder / f"{name}.json", record)


if __name__ == "__main__":
    run(main)
