"""What there is to tune: studies/tuning.yaml, held against the parameters and code in force."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from roofseg.errors import UserError
from roofseg.files import sha256_files
from roofseg.recipe import Params, Recipe, digest
from roofseg.tiles import read_nudges, read_split
from roofseg.tuning import SOURCE, Run, Tuning, parse_tuning, spaces

RECORDS = Path("metrics/studies/runs/tuning")  # of the trials of Optuna
TABLE = Path("metrics/studies/tuning.csv")


def read_tuning(params: Params) -> tuple[Tuning, dict[str, list[Run]]]:
    """The file, and all runs of each attempt's grid (see `roofseg.tuning.spaces`)."""
    try:
        tuning = parse_tuning(Path(SOURCE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{SOURCE}: cannot be read ({error})") from None
    dataset, code = Path("data") / params.dataset, training_code()
    split, nudges = read_split(dataset), read_nudges(dataset)

    def identity(recipe: Recipe) -> str:
        return f"{digest(recipe, params, split, nudges)} {code}"

    return tuning, spaces(tuning, params, identity=identity)


def training_code() -> str:
    """SHA-256 of the code that dvc.yaml says a training depends on: importing it takes seconds."""
    stages = YAML(typ="safe").load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = stages["train"]["do"]["deps"]
    return sha256_files(Path(dep) for dep in deps if dep.endswith(".py"))
