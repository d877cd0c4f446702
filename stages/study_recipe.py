"""Check all of studies.yaml, and write the recipe of an attempt in each study that trains it.

DVC runs ``python -m stages.study_recipe ATTEMPT --prior FILE`` as the stage recipe@ATTEMPT. A run
of a study depends on this recipe, not on all of params.yaml and studies.yaml, so it repeats only
when its recipe changes.
"""

from __future__ import annotations

from pathlib import Path

from roofseg.core.files import atomic_write, read_json, sha256_file, user_path, write_json
from roofseg.core.terminal import ArgumentParser
from roofseg.recipe.split import read_split
from roofseg.studies.declaration import check_budget, overridden
from roofseg.studies.in_force import IN_FORCE, check_lists
from stages import run
from stages._studies import RECIPES, declared_studies


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.study_recipe", description=__doc__)
    parser.add_argument("attempt", help="an attempt in params.yaml or studies.yaml")
    parser.add_argument("--prior", type=user_path, required=True, help="its prior's weights file")
    args = parser.parse_args()
    attempt = args.attempt
    studies, params = declared_studies()
    check_budget(studies, read_split(Path("data") / params.dataset))
    check_lists(Path(IN_FORCE), studies, params)
    held = read_json(args.prior.with_suffix(".json"))
    used_in = {
        name: study for name, study in studies.by_name().items() if attempt in study.attempts
    }
    with atomic_write(RECIPES / attempt) as folder:
        write_json(folder / "studies.json", list(used_in))  # DVC warns about an empty folder
        for name, study in used_in.items():
            recipe = overridden(params, attempt, study.overrides)
            recipe.check_prior(held)
            record = {
                "study": name,
                "attempt": attempt,
                "label": recipe.label(attempt),
                "dataset": params.dataset,
                "patch_size": params.patch_size,
                "overrides": study.overrides,
                "recipe": recipe.model_dump(mode="json"),
                "prior": read_json(args.prior.with_suffix(".json")),
                "prior_sha256": sha256_file(args.prior),
            }
            write_json(folder / f"{name}.json", record)


if __name__ == "__main__":
    run(main)
