"""The parameters in force, and what they make of an attempt."""

from __future__ import annotations

import sys
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import read_json
from roofseg.recipe.digest import digest
from roofseg.recipe.params import Params, Recipe, parse_params
from roofseg.recipe.split import read_nudges, read_split


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate parameters."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). Stages run from the folder that holds dvc.yaml; "
            "`make profile NAME=sample` makes a params.yaml there."
        ) from None
    return parse_params(text, source=str(path))


def code() -> set[Path]:
    """The files of this project's packages that the process has imported."""
    modules = [
        module for key, module in sys.modules.items() if key.startswith(("roofseg", "stages"))
    ]
    return {Path(module.__file__).resolve() for module in modules if module.__file__}


def prior_file(recipe: Recipe) -> Path:
    """The file that weights/dvc.yaml makes for the recipe's prior."""
    return Path("weights") / f"{recipe.prior}.safetensors"


def recipe_digest(params: Params, attempt: str) -> str:
    """The digest of an attempt's recipe, with the split and nudges of the dataset in force."""
    dataset = Path("data") / params.dataset
    return digest(params.recipe(attempt), params, read_split(dataset), read_nudges(dataset))


def trained_digest(params: Params, attempt: str) -> str:
    """The digest of an attempt's recipe, if a model was trained with that very recipe."""
    wanted = recipe_digest(params, attempt)
    path = Path("models") / attempt / "recipe.json"
    record = read_json(path)
    if record["digest"] != wanted:
        raise UserError(
            f"{path}: the model was trained with the recipe {record['digest']}, but params.yaml, "
            f"split and nudges now give {wanted}. Run `dvc repro train@{attempt}` first."
        )
    if record["result"]["failure"]:
        raise UserError(
            f"{path}: training broke off: {record['result']['failure']} Train it to its end first."
        )
    return wanted
