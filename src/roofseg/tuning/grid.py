"""The search space of tuning: for each attempt a grid of recipe keys and their values.

The recipes of a grid have a seeded order, and a budget takes the first of them: a random
search (Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012) that is
spread like a Latin hypercube (McKay et al., Technometrics 21, 1979), so that all values of a key
are used about equally often. A larger budget extends a smaller one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file
from roofseg.recipe.digest import digest
from roofseg.recipe.params import Params, Recipe, SharedRecipe
from roofseg.recipe.parsing import parse_mapping
from roofseg.recipe.split import read_nudges, read_split
from roofseg.studies.declaration import (
    Checked,
    Count,
    Overrides,
    Seed,
    Several,
    overridden,
    parse,
    read_text,
)

SOURCE = "studies/tuning.yaml"

# Every recipe of a grid is validated, and ordering them takes quadratic time: with a larger grid,
# each command would spend minutes on recipes that nobody trains.
LARGEST_GRID = 2_000


class Tuning(Checked):
    """All of tuning.yaml.

    ``sampler`` picks the runs of each attempt's grid: ``grid`` takes a seeded sample, ``tpe`` picks
    each run by the results of the earlier runs. ``seed`` is that of the sampler, not of training.
    ``runs`` is the number of runs of each attempt. ``common`` holds recipe keys that all runs
    share, such as fewer epochs. ``attempts`` holds the values to try, by attempt and key.
    """

    sampler: Literal["grid", "tpe"]
    seed: Seed
    runs: Count
    common: Overrides = Field(default_factory=dict)
    attempts: dict[str, dict[str, Several[Any]]] = Field(min_length=1)


TUNABLE = (*SharedRecipe.model_fields, "lora_rank", "lora_alpha")
"""The keys of recipes that a grid may vary, but for the seed."""


@dataclass(frozen=True)
class Run:
    """A recipe to try.

    ``name`` is the name of its DVC experiment. It is derived from the whole recipe and the training
    code, so a finished run is recognised even after params.yaml was changed. ``values`` are the
    run's point in the grid; ``overrides`` are these values and those of the common keys.
    """

    attempt: str
    name: str
    values: Mapping[str, Any]
    overrides: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The run in a progress line: ``unet_imagenet lr 0.001, augmentation light``."""
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        return f"{self.attempt} {values}"


Spaces = Mapping[str, Sequence[Run]]
"""All runs of each attempt's grid, by attempt."""


def read_tuning(
    path: Path, params: Params, *, dataset: Path, pipeline: Path
) -> tuple[Tuning, Spaces]:
    """Read tuning.yaml and build the grids that it declares (see `build_spaces`).

    Args:
        path: tuning.yaml.
        params: the parameters in force.
        dataset: folder with split.csv and nudges.csv.
        pipeline: the dvc.yaml that lists the training code (see `hash_training_code`).

    Raises:
        UserError: the file cannot be read, or declares something that cannot be run
    """
    tuning = parse(read_text(path), Tuning, str(path))
    split, nudges, code = read_split(dataset), read_nudges(dataset), hash_training_code(pipeline)

    def identify(recipe: Recipe) -> str:
        return f"{digest(recipe, params, split, nudges)} {code}"

    return tuning, build_spaces(tuning, params, identify=identify, source=str(path))


def hash_training_code(pipeline: Path) -> str:
    """SHA-256 (64 hex digits) of the Python code that the stage train depends on.

    It covers the contents and the names, from the project's root, of the .py files that dvc.yaml
    lists under src and stages, and of those below the folders that it lists there.
    """
    stages = parse_mapping(pipeline.read_text(encoding="utf-8"), str(pipeline))["stages"]
    root = pipeline.parent
    files: set[Path] = set()
    for path in stages["train"]["do"]["deps"]:
        if path.startswith(("src/", "stages/")):
            files.update([root / path] if path.endswith(".py") else (root / path).rglob("*.py"))
    lines = sorted(f"{file.relative_to(root).as_posix()} {sha256_file(file)}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def build_spaces(
    tuning: Tuning, params: Params, *, identify: Callable[[Recipe], str], source: str = SOURCE
) -> dict[str, list[Run]]:
    """All runs of each attempt's grid, in a seeded order; the first ``tuning.runs`` are its sample.

    Args:
        tuning: the grids.
        params: the parameters in force, with the remaining keys of each recipe.
        identify: returns the text that identifies a recipe's result: its digest and everything else
            that decides the result. Names of runs are derived from it.
        source: the file of ``tuning``, for messages.

    Raises:
        UserError: an unknown attempt, a value that a recipe refuses, a grid larger than
            `LARGEST_GRID`, more runs than a grid holds, a key in both the grid and common, or a key
            that cannot be tuned
    """
    return {
        attempt: _build_space(tuning, params, attempt, identify, source)
        for attempt in tuning.attempts
    }


def _build_space(
    tuning: Tuning, params: Params, attempt: str, identify: Callable[[Recipe], str], source: str
) -> list[Run]:
    grid, where = tuning.attempts[attempt], f"{source}: attempts.{attempt}"
    if attempt not in params.attempts:
        raise UserError(
            f"{where}: no such attempt; params.yaml has: {', '.join(params.attempts)}. Remove it "
            "(studies/profiles/ has a file for each profile)."
        )
    for location, keys in ((where, grid.keys()), (f"{source}: common", tuning.common.keys())):
        if "seed" in keys:
            raise UserError(
                f"{location}.seed: the seed cannot be tuned: the best of several seeds is luck. "
                "Remove it; the study of seeds (docs/studies.md) measures what a seed changes."
            )
        if unknown := keys - set(TUNABLE):
            raise UserError(
                f"{location}.{min(unknown)}: not a recipe key. Known: {', '.join(TUNABLE)}"
            )
    if twice := grid.keys() & tuning.common.keys():
        raise UserError(f"{where}.{min(twice)}: also in common; remove it from one of them")
    if (size := math.prod(map(len, grid.values()))) > LARGEST_GRID:
        raise UserError(
            f"{where}: found a grid of {size} recipes; expected at most {LARGEST_GRID}. Remove "
            "values, or tune some of the keys first and the others later."
        )
    runs: dict[str, Run] = {}
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        overrides = {**tuning.common, **values}
        identity = identify(_resolve(tuning, params, attempt, overrides, source))
        name = f"tune-{attempt}-{short_hash(f'{attempt} {identity}')}"
        if name in runs:
            raise UserError(
                f"{where}: {values} and {dict(runs[name].values)} are the same recipe; expected "
                "different ones. Remove one of the values."
            )
        runs[name] = Run(attempt, name, values, overrides)
    if tuning.runs > len(runs):
        raise UserError(
            f"{source}: runs: found {tuning.runs}, but the grid of {attempt} has only {len(runs)} "
            "recipes, and every attempt gets the same number of runs. Lower it, or add values."
        )
    return _spread(list(runs.values()), tuning.seed)


def _resolve(
    tuning: Tuning, params: Params, attempt: str, overrides: Mapping[str, Any], source: str
) -> Recipe:
    try:
        return overridden(params, attempt, overrides, source=source)
    except UserError as error:
        message = str(error)
        for key in tuning.common:
            message = message.replace(f"attempts.{attempt}.{key}:", f"common.{key}:")
        raise UserError(message) from None


def _spread(runs: list[Run], seed: int) -> list[Run]:
    """Order the runs randomly, but such that the next run has the least used values."""
    waiting = [runs[index] for index in np.random.default_rng(seed).permutation(len(runs))]
    used: Counter[tuple[str, Any]] = Counter()
    ordered = []
    while waiting:
        run = min(waiting, key=lambda run: sum(used[item] for item in run.values.items()))
        waiting.remove(run)
        used.update(run.values.items())
        ordered.append(run)
    return ordered


def short_hash(text: str) -> str:
    """The first 12 hex digits, like a recipe's digest, of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def settings(run: Run, params: Params) -> list[str]:
    """The run's overrides as arguments of DVC's ``-S``; + adds a key that the attempt lacks."""
    block = params.attempts[run.attempt]
    return [
        f"{'' if key in block else '+'}attempts.{run.attempt}.{key}="
        f"{'null' if value is None else value}"
        for key, value in run.overrides.items()
    ]
