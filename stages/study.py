"""One run of a study: a stage of studies/dvc.yaml, such as budget@NAME.

``python -m stages.study RECIPE --seed 1 --tiles 5 --out FILE``: the recipe is a file that
recipe@ATTEMPT made of params.yaml and studies.yaml, and nothing else of the two decides the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.recipe.params import Recipe, read_params
from roofseg.training.augment import PRESETS
from stages import run
from stages.study_run import study_run
from stages.training import prior_file


def seed(text: str) -> int:
    """A seed as a recipe takes it."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"found {value}; expected 0 to 2**32 - 1")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.study", description=__doc__)
    parser.add_argument("recipe", type=Path, help="studies/recipes/ATTEMPT/STUDY.json")
    parser.add_argument("--seed", required=True, type=seed, help="of the run, and of its tiles")
    parser.add_argument("--out", required=True, type=Path, help="the JSON file to write")
    parser.add_argument("--tiles", type=int, help="how many training tiles; default: all")
    parser.add_argument("--preset", choices=PRESETS, help="augmentation; default: the recipe's")
    asked = parser.parse_args()
    made = read_json(asked.recipe)
    varied = {"seed": asked.seed, **({"augmentation": asked.preset} if asked.preset else {})}
    recipe = Recipe.model_validate({**made["recipe"], **varied})
    prior = prior_file(recipe)
    if not prior.is_file() or sha256_file(prior) != made["prior_sha256"]:
        raise UserError(
            f"{prior}: missing, or not the file that {asked.recipe} was made with. Run "
            f"`dvc repro studies/dvc.yaml:recipe@{made['attempt']}`."
        )
    record = study_run(
        recipe,
        study=made["study"],
        attempt=made["attempt"],
        params=read_params(Path("params.yaml")),
        out=asked.out,
        tiles=asked.tiles,
        note=lambda: {"overrides": made["overrides"]},
    )
    if record is None:
        return
    if failure := record["result"]["failure"]:
        print(f"warning: {asked.out}: the run broke off, and says so: {failure}")
    print(f"{made['study']}: {asked.out.stem}: val IoU {record['val_iou']:.4f}")


if __name__ == "__main__":
    run(main)
