"""Tuning: for each attempt a grid of recipe keys, and as many runs from it as for every other.

The runs of a grid have an order of their own, drawn with a seed: a budget smaller than the grid
takes the first of them. That is a random search (Bergstra and Bengio, Random Search for
Hyper-Parameter Optimization, JMLR 13, 2012) whose samples are spread as in a Latin hypercube (McKay
et al., Technometrics 21, 1979): of each key all values come about equally often. A larger budget
goes on from a smaller one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from roofseg.core.errors import UserError
from roofseg.recipe.params import Params, Recipe, SharedRecipe
from roofseg.studies.declaration import Checked, Count, Overrides, Seed, Several, overridden, parse

SOURCE = "studies/tuning.yaml"
NAME_LENGTH = 12  # hex digits, as of a recipe's digest

# Each recipe is validated, and their order takes the square of it: more than that means waiting
# longer than some seconds, for recipes that nobody trains.
LARGEST_GRID = 2_000


class Tuning(Checked):
    """All of tuning.yaml: the values to try, by attempt and key, and how many runs of them.

    ``seed`` decides which runs; it is not that of training. ``runs`` is the budget of each attempt.
    ``common`` holds recipe keys that all runs share, such as fewer epochs.
    """

    seed: Seed
    runs: Count
    common: Overrides = Field(default_factory=dict)
    attempts: dict[str, dict[str, Several[Any]]] = Field(min_length=1)


@dataclass(frozen=True)
class Run:
    """A recipe to try.

    ``name`` is that of its experiment. It follows from the whole recipe and the code that trains,
    so a run that is done is known again, whatever the recipe in force was meanwhile. ``values`` are
    those of the grid; ``overrides`` are they and the common ones.
    """

    attempt: str
    name: str
    values: Mapping[str, Any]
    overrides: Mapping[str, Any]

    @property
    def label(self) -> str:
        """As progress shows it: ``unet_imagenet lr 0.001, augmentation light``."""
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        return f"{self.attempt} {values}"


def parse_tuning(text: str, source: str = SOURCE) -> Tuning:
    """Parse tuning.yaml from YAML 1.2 text; `spaces` then holds it against the parameters.

    Raises UserError naming ``source``, the key and what was found.
    """
    return parse(text, Tuning, source)


def spaces(
    tuning: Tuning, params: Params, *, identity: Callable[[Recipe], str], source: str = SOURCE
) -> dict[str, list[Run]]:
    """All runs of each attempt's grid, in their order; the first ``tuning.runs`` are the budget.

    Args:
        tuning: what to try.
        params: the parameters in force, which say the rest of a recipe.
        identity: what a recipe's run is known by: its digest and whatever else decides the result.
        source: the file of ``tuning``, for messages.

    Raises:
        UserError: an attempt that is not there, a value that a recipe refuses, a grid larger than
            `LARGEST_GRID`, a budget larger than a grid, a key in two places or that is not for
            tuning
    """
    return {
        attempt: _space(tuning, params, attempt, identity, source) for attempt in tuning.attempts
    }


def _space(
    tuning: Tuning, params: Params, attempt: str, identity: Callable[[Recipe], str], source: str
) -> list[Run]:
    grid, where = tuning.attempts[attempt], f"{source}: attempts.{attempt}"
    if attempt not in params.attempts:
        raise UserError(
            f"{where}: no such attempt; params.yaml has: {', '.join(params.attempts)}. Take it out "
            "(studies/profiles/ has what suits each profile)."
        )
    for place, keys in ((where, grid.keys()), (f"{source}: common", tuning.common.keys())):
        if "seed" in keys:
            raise UserError(
                f"{place}.seed: a seed is not for tuning: the best of several is luck. How much a "
                "seed decides is what the study of seeds is for."
            )
        if unknown := keys - SharedRecipe.model_fields.keys():
            raise UserError(
                f"{place}.{min(unknown)}: no key of a recipe. "
                f"Known: {', '.join(SharedRecipe.model_fields)}"
            )
    if twice := grid.keys() & tuning.common.keys():
        raise UserError(f"{where}.{min(twice)}: in the grid and in common; one of them has to go")
    if (size := math.prod(map(len, grid.values()))) > LARGEST_GRID:
        raise UserError(
            f"{where}: found a grid of {size} recipes; expected at most {LARGEST_GRID}. Take "
            "values out, or tune some of its keys first and the others later."
        )
    runs: dict[str, Run] = {}
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        overrides = {**tuning.common, **values}
        name = _name(attempt, identity(_recipe(tuning, params, attempt, overrides, source)))
        if name in runs:
            raise UserError(
                f"{where}: {values} and {dict(runs[name].values)} are the same recipe; expected "
                "each once. Take one of the values out."
            )
        runs[name] = Run(attempt, name, values, overrides)
    if tuning.runs > len(runs):
        raise UserError(
            f"{source}: runs: found {tuning.runs}, but the grid of {attempt} has only {len(runs)}; "
            "every attempt gets the same number of runs. Lower it, or add values."
        )
    return _spread(list(runs.values()), tuning.seed)


def _recipe(
    tuning: Tuning, params: Params, attempt: str, overrides: Mapping[str, Any], source: str
) -> Recipe:
    try:
        return overridden(params, attempt, overrides, source=source)
    except UserError as error:
        common = f"{source}: common"
        try:
            overridden(params, attempt, tuning.common, source=common)
        except UserError as alone:
            # In the same words without the grid: it is common that is wrong. (In other words it may
            # be right: fewer epochs, say, beside a grid of freeze_epochs that are fewer still.)
            if str(alone) == str(error).replace(source, common, 1):
                said = str(alone).replace(f"{common}: attempts.{attempt}.", f"{common}.")
                raise UserError(said) from None
        raise


def _spread(runs: list[Run], seed: int) -> list[Run]:
    """The runs in a random order, where the next is always one whose values were used least."""
    waiting = [runs[index] for index in np.random.default_rng(seed).permutation(len(runs))]
    used: Counter[tuple[str, Any]] = Counter()
    order = []
    while waiting:
        run = min(waiting, key=lambda run: sum(used[item] for item in run.values.items()))
        waiting.remove(run)
        used.update(run.values.items())
        order.append(run)
    return order


def _name(attempt: str, identity: str) -> str:
    return f"tune-{attempt}-{_short_hash(f'{attempt} {identity}')}"


def search_name(space: Sequence[Run]) -> str:
    """The name of the adaptive search in an attempt's grid; it follows from the grid's recipes."""
    names = " ".join(sorted(run.name for run in space))
    return f"{space[0].attempt} {_short_hash(names)}"


def warmup(space: Sequence[Run], params: Params) -> int:
    """The epochs after which runs of a grid can be compared: one more than until the last thaw.

    Before its thaw a run looks like any other, and its first epoch after it says little.
    """
    differ = {run.overrides.get("freeze_epochs"): run.overrides for run in space}
    attempt = space[0].attempt
    recipes = (overridden(params, attempt, each, source=SOURCE) for each in differ.values())
    return max(recipe.thaw_epoch or 0 for recipe in recipes) + 1


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]


def budget(spaces: Mapping[str, Sequence[Run]], runs: int) -> list[Run]:
    """The first ``runs`` of each attempt, in turns: stopped early, all have had as many."""
    return [space[number] for number in range(runs) for space in spaces.values()]


def settings(run: Run, params: Params) -> list[str]:
    """The run's overrides as DVC's ``-S`` takes them, with a + where the attempt lacks the key."""
    block = params.attempts[run.attempt]
    return [
        f"{'' if key in block else '+'}attempts.{run.attempt}.{key}={_written(value)}"
        for key, value in run.overrides.items()
    ]


def _written(value: Any) -> str:
    return "null" if value is None else str(value)
