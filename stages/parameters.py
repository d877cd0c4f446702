"""The parameters in force, and what they make of an attempt."""

from __future__ import annotations

from pathlib import Path

from roofseg.errors import UserError
from roofseg.recipe import Params, digest, parse_params
from roofseg.tiles import read_nudges, read_split


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate parameters."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). Stages run from the folder that holds dvc.yaml; "
            "`make profile NAME=sample` makes a params.yaml there."
        ) from None
    return parse_params(text, source=str(path))


def recipe_digest(params: Params, attempt: str) -> str:
    """The digest of an attempt's recipe, with the split and nudges of the dataset in force."""
    dataset = Path("data") / params.dataset
    return digest(params.recipe(attempt), params, read_split(dataset), read_nudges(dataset))
