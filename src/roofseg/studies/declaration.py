"""The studies that studies.yaml declares, validated against the parameters.

A study trains attempts several times; its runs differ in the number of tiles, the augmentation
preset, the seed, or the tiles that are held out. The attempts are those of params.yaml and those
that studies.yaml adds. No run is scored on test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from roofseg.core.errors import UserError
from roofseg.recipe.params import Augmentation, Params, Recipe, SharedRecipe
from roofseg.recipe.parsing import parse_mapping, parse_params

SOURCE = "studies/studies.yaml"

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


def _distinct(values: list[T]) -> list[T]:
    if repeated := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"expected different values, found {repeated[0]!r} twice")
    return values


Several = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]


class Checked(BaseModel):
    """A block of YAML. Unknown keys and values of another type (``true`` for 1) are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _none_is_empty(values: Any) -> Any:
    return {} if values is None else values


Overrides = Annotated[dict[str, Any], BeforeValidator(_none_is_empty)]
"""Values that replace keys of a recipe; an empty block (all lines commented out) replaces none."""


class Study(Checked):
    """The keys of every study: attempts, each trained several times under ``overrides``.

    ``overrides`` replace keys of the recipes of all attempts of the study.
    """

    attempts: Several[str]
    overrides: Overrides = {}

    def axes(self) -> dict[str, Sequence[Any]]:
        """The values on each axis, in the order of the stage's matrix in studies/dvc.yaml."""
        return {"attempt": self.attempts}

    def runs(self) -> dict[str, dict[str, Any]]:
        """The axis values of each run, by the name that DVC gives it: the values with hyphens."""
        axes = self.axes()
        return {
            "-".join(map(str, values)): dict(zip(axes, values, strict=True))
            for values in product(*axes.values())
        }

    def recipe(self, params: Params, run: Mapping[str, Any]) -> Recipe:
        """The resolved recipe of one of `runs`; ``params`` include the attempts of studies.yaml."""
        recipe = overridden(params, run["attempt"], self.overrides)
        varied = run.keys() & SharedRecipe.model_fields.keys()
        return recipe.model_copy(update={key: run[key] for key in varied})

    @model_validator(mode="after")
    def _overrides_keep_axes(self) -> Study:
        varied = self.axes().keys()
        for key in self.overrides:
            if key in varied & SharedRecipe.model_fields.keys():
                raise ValueError(f"overrides.{key}: the study sets this key for each run")
            if key not in SharedRecipe.model_fields:
                known = ", ".join(name for name in SharedRecipe.model_fields if name not in varied)
                raise ValueError(f"overrides.{key}: unknown key. The known keys are: {known}")
        return self


class OverSeeds(Study):
    """A study that trains every recipe once per seed.

    A seed decides a run's initial weights, draws and augmentation, and its subset of the training
    tiles.
    """

    seeds: Several[Seed]

    def axes(self) -> dict[str, Sequence[Any]]:
        return {**super().axes(), "seed": self.seeds}


class Budget(OverSeeds):
    """How IoU grows with the number of training ``tiles``; subsets of one seed are nested."""

    tiles: Several[Count]

    def axes(self) -> dict[str, Sequence[Any]]:
        return {"attempt": self.attempts, "tiles": self.tiles, "seed": self.seeds}


class Seeds(OverSeeds):
    """How much of the difference between attempts is due to the seed."""

    @field_validator("seeds")
    @classmethod
    def _at_least_two(cls, seeds: list[int]) -> list[int]:
        if len(seeds) < 2:
            raise ValueError(f"expected at least 2, found {len(seeds)}: one seed has no spread")
        return seeds


class Augmentations(OverSeeds):
    """Whether attempts with a frozen encoder prefer a milder augmentation.

    The study compares the mean IoU under the ``mild`` presets with that under the ``strong``
    presets, for each attempt in ``frozen`` and for the attempt ``unfrozen``.
    """

    presets: Several[Augmentation]
    frozen: Several[str]
    unfrozen: str
    mild: Several[Augmentation]
    strong: Several[Augmentation]

    def axes(self) -> dict[str, Sequence[Any]]:
        return {"attempt": self.attempts, "augmentation": self.presets, "seed": self.seeds}

    def other_differences(self, params: Params) -> dict[str, list[str]]:
        """The keys, other than those of freezing, in which frozen recipes differ from the unfrozen.

        Returns the keys by the label of the frozen attempt. ``params`` include the attempts of
        studies.yaml.
        """
        unfrozen, *recipes = (
            overridden(params, attempt, self.overrides) for attempt in [self.unfrozen, *self.frozen]
        )
        return {
            recipe.label(attempt): [
                key
                for key in Recipe.model_fields
                if key not in ("freeze_epochs", "encoder_lr_factor", "augmentation")
                and getattr(recipe, key) != getattr(unfrozen, key)
            ]
            for attempt, recipe in zip(self.frozen, recipes, strict=True)
        }

    @model_validator(mode="after")
    def _compared_attempts_are_trained(self) -> Augmentations:
        for name in [*self.frozen, self.unfrozen]:
            if name not in self.attempts:
                raise ValueError(f"{name!r} is compared, but is not in attempts")
        if self.unfrozen in self.frozen:
            raise ValueError(f"{self.unfrozen!r} is both frozen and unfrozen")
        for preset in [*self.mild, *self.strong]:
            if preset not in self.presets:
                raise ValueError(f"{preset!r} is compared, but is not in presets")
        if both := [preset for preset in self.mild if preset in self.strong]:
            raise ValueError(f"{both[0]!r} is both mild and strong")
        return self


class Folds(Study):
    """Cross-validation over the tiles of train and val together.

    ``folds`` is the number of folds, and ``seed`` decides which tiles are in which
    (`roofseg.intake.folds`). The seed of training is the recipe's.
    """

    folds: int
    seed: Seed

    def axes(self) -> dict[str, Sequence[Any]]:
        return {**super().axes(), "fold": range(1, self.folds + 1)}

    @field_validator("folds")
    @classmethod
    def _enough_for_every_role(cls, folds: int) -> int:
        if folds < 3:
            raise ValueError(
                f"found {folds}; expected at least 3: one fold is scored, another chooses the best "
                "epoch, and the others train"
            )
        return folds


class StudyBlocks(Checked):
    """The block ``studies`` of studies.yaml."""

    budget: Budget
    seeds: Seeds
    augmentation: Augmentations
    folds: Folds


STUDY_NAMES = tuple(StudyBlocks.model_fields)


class Studies(Checked):
    """All of studies.yaml; ``attempts`` adds attempts for studies, written as in params.yaml."""

    attempts: Annotated[dict[str, dict[str, Any]], BeforeValidator(_none_is_empty)]
    studies: StudyBlocks

    def study(self, name: str) -> Study:
        """The study called ``name``, one of `STUDY_NAMES`."""
        study: Study = getattr(self.studies, name)
        return study

    def by_name(self) -> dict[str, Study]:
        """All studies by name."""
        return {name: self.study(name) for name in STUDY_NAMES}


def parse(text: str, model: type[Model], source: str) -> Model:
    """Read YAML 1.2 into a model; UserError names ``source``, the key and what was found."""
    try:
        return model.model_validate(parse_mapping(text, source))
    except ValidationError as error:
        # A misspelt key also leaves the right one missing: report missing keys last.
        first = min(error.errors(), key=lambda found: found["type"] == "missing")
        key = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            block: Any = model
            for part in first["loc"][:-1]:
                block = block.model_fields[part].annotation
            known = ", ".join(block.model_fields)
            problem = f"unknown key (misspelt?). The known keys are: {known}"
        elif first["type"] == "missing":
            problem = "missing; compare with the complete files in studies/profiles/"
        elif first["type"] != "value_error":
            problem = f"found {first['input']!r}; {problem}"
        raise UserError(f"{source}: {key}: {problem}") from None


def read_text(path: Path) -> str:
    """The text of a file that studies/profiles/ has for each profile; UserError without one."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). Copy one of studies/profiles/ there."
        ) from None


def read_studies(path: Path, params: Params) -> tuple[Studies, Params]:
    """Read and validate studies.yaml; return it and the parameters with its attempts added.

    Raises:
        UserError: the file cannot be read, or is invalid (see `parse_studies`)
    """
    studies = parse_studies(read_text(path), params, str(path))
    return studies, with_attempts(params, studies.attempts, source=str(path))


def parse_studies(text: str, params: Params, source: str = SOURCE) -> Studies:
    """Parse studies.yaml and validate it against the parameters.

    Raises:
        UserError: invalid YAML, unknown keys, unknown attempts, overrides that an attempt's recipe
            refuses, or attempts compared as frozen that are not; names ``source`` and the key
    """
    studies = parse(text, Studies, source)
    for name, block in studies.attempts.items():
        if "seed" in block:
            raise UserError(
                f"{source}: attempts.{name}.seed: seeds are set by each study. Remove this line."
            )
    every = with_attempts(params, studies.attempts, source=source)
    for name, study in studies.by_name().items():
        key = f"{source}: studies.{name}"
        for attempt in study.attempts:
            if attempt not in every.attempts:
                raise UserError(
                    f"{key}.attempts: found {attempt!r}; expected an attempt of params.yaml or of "
                    f"{source}: {', '.join(every.attempts)}"
                )
            overridden(every, attempt, study.overrides, source=f"{key}.overrides")
    comparison = studies.studies.augmentation
    for attempt in [*comparison.frozen, comparison.unfrozen]:
        recipe = overridden(every, attempt, comparison.overrides)
        if (recipe.thaw_epoch is None) != (attempt in comparison.frozen):
            raise UserError(
                f"{source}: studies.augmentation: {attempt} is compared as "
                f"{'frozen' if attempt in comparison.frozen else 'unfrozen'}, but its "
                f"freeze_epochs is {recipe.freeze_epochs}"
            )
    return studies


def check_budget(studies: Studies, split: Mapping[str, str]) -> None:
    """Raise UserError if the budget study needs more tiles than the split has for training.

    ``split`` maps tiles to train, val or test.
    """
    available = list(split.values()).count("train")
    for count in studies.studies.budget.tiles:
        if count > available:
            raise UserError(
                f"{SOURCE}: studies.budget.tiles: found {count}; expected at most {available}, the "
                "number of training tiles in split.csv"
            )


def with_attempts(
    params: Params, blocks: Mapping[str, Mapping[str, Any]], *, source: str
) -> Params:
    """Add attempts to the parameters, none of them final; UserError if one is invalid."""
    if known := [name for name in blocks if name in params.attempts]:
        raise UserError(
            f"{source}: attempts.{known[0]}: params.yaml has an attempt of the same "
            "name; use that one, or rename this one"
        )
    values = params.model_dump(mode="json")
    values["attempts"] |= blocks
    values["final"] |= dict.fromkeys(blocks)
    return _validated(values, source)


def overridden(
    params: Params, attempt: str, overrides: Mapping[str, Any], *, source: str = SOURCE
) -> Recipe:
    """The resolved recipe of an attempt with other values for some of its keys.

    The values are validated as in params.yaml; UserError names ``source`` instead of that file.
    """
    params.recipe(attempt)  # raises for an unknown attempt
    values = params.model_dump(mode="json")
    values["attempts"][attempt] |= overrides
    return _validated(values, source).recipe(attempt)


def _validated(values: Mapping[str, Any], source: str) -> Params:
    # JSON is YAML too. A date, which YAML has and JSON lacks, becomes text, which no key accepts.
    return parse_params(json.dumps(values, default=str), source)
