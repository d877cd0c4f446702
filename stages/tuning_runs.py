"""What there is to tune: studies/tuning.yaml, held against the parameters and code in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_files
from roofseg.recipe.digest import digest
from roofseg.recipe.params import Params, Recipe, parse_params
from roofseg.recipe.split import read_nudges, read_split
from roofseg.tuning import dvc_queue
from roofseg.tuning.grid import SOURCE, Run, Tuning, parse_tuning, search_name, spaces
from roofseg.tuning.table import Result, trial_state

RECORDS = Path("metrics/studies/runs/tuning")  # of the trials of Optuna
TABLE = Path("metrics/studies/tuning.csv")


def read_tuning(params: Params) -> tuple[Tuning, dict[str, list[Run]]]:
    """The file, and all runs of each attempt's grid (see `roofseg.tuning.grid.spaces`)."""
    try:
        tuning = parse_tuning(Path(SOURCE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{SOURCE}: cannot be read ({error}). Copy one of studies/profiles/ there."
        ) from None
    dataset, code = Path("data") / params.dataset, training_code()
    split, nudges = read_split(dataset), read_nudges(dataset)

    def identity(recipe: Recipe) -> str:
        return f"{digest(recipe, params, split, nudges)} {code}"

    return tuning, spaces(tuning, params, identity=identity)


def trials(spaces: Mapping[str, Sequence[Run]]) -> list[Result]:
    """Optuna's trials in the searches of the grids that tuning.yaml has now."""
    found = []
    for space in spaces.values():
        search = search_name(space)
        for each in space:
            path = RECORDS / f"{each.name}.json"
            record = read_json(path) if path.is_file() else {"trials": {}}
            if search in record["trials"]:
                val = pd.DataFrame(record["val"]) if record["val"] else None
                number = record["trials"][search] + 1
                found.append(Result(each, "optuna", number, trial_state(record), val))
    return sorted(found, key=lambda each: each.number)


def check_final(attempts: Iterable[str], params: Params) -> None:
    """UserError where ``final`` is not as committed: runs would train, and then not evaluate."""
    head = dvc_queue.head()
    committed = parse_params(dvc_queue.Finished(head, head).read("params.yaml")).final
    for name in attempts:
        if params.final[name] != committed.get(name):
            raise UserError(
                f"params.yaml: final.{name}: found {params.final[name]!r}, but "
                f"{committed.get(name)!r} in the current commit. Commit it, or set it back: an "
                "experiment would train and then stop at that."
            )


def make_ready(attempts: Iterable[str], params: Params) -> None:
    """What the trials of Optuna need: one device, the package, and patches and priors in force.

    No stage of DVC trains them, so nothing else would notice the patches of another profile.
    """
    if params.devices > 1:
        raise UserError(
            f"params.yaml: devices: found {params.devices}; --engine optuna trains on 1. Set that, "
            "or tune by the grid, whose runs take several."
        )
    if not find_spec("optuna"):
        raise UserError("--engine optuna: no such package here; run `pip install 'optuna>=5,<6'`")
    print("making patches and priors, where they are not up to date", flush=True)
    priors = sorted({params.recipe(attempt).prior for attempt in attempts})
    # Once there are patches, the tiles may go; a prior that is gone would stay so.
    dvc_queue.reproduce(["make_patches"], allow_missing=Path("patches/train").is_dir())
    dvc_queue.reproduce([f"weights/dvc.yaml:{prior}" for prior in priors], allow_missing=False)


def training_code() -> str:
    """SHA-256 of the code that dvc.yaml says a training depends on: importing it takes seconds."""
    stages = YAML(typ="safe").load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = stages["train"]["do"]["deps"]
    return sha256_files(Path(dep) for dep in deps if dep.endswith(".py"))
