"""The studies beside the pipeline, as studies/studies.yaml declares them.

A study trains attempts of params.yaml, or attempts of its own, several times over, each run a
little different: on fewer tiles, from another seed, under another augmentation. Every run is scored
on val alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
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
from roofseg.recipe.params import (
    Augmentation,
    Params,
    Recipe,
    SharedRecipe,
    parse_mapping,
    parse_params,
)

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


def _different(values: list[T]) -> list[T]:
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"expected each only once, found {twice[0]!r} twice")
    return values


Several = Annotated[list[T], Field(min_length=1), AfterValidator(_different)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]


class Checked(BaseModel):
    """A block of YAML: unknown keys are errors, and so is ``true`` where a number is meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _none(values: Any) -> Any:
    return {} if values is None else values


def _something(values: Any) -> Any:
    # DVC reads the file, too, and merges these attempts with those of params.yaml.
    if values is None:
        raise ValueError("found nothing; write `attempts: {}`")
    return values


Overrides = Annotated[dict[str, Any], BeforeValidator(_none)]
"""Keys of a recipe with other values; nothing where all lines below it are commented out."""


class Study(Checked):
    """What all studies have: attempts, each trained once per seed under ``overrides``.

    A seed decides a run's initial weights, draws and augmentation, and which tiles a smaller set
    of them holds. ``overrides`` are keys of a recipe, for all attempts of the study.
    """

    attempts: Several[str]
    seeds: Several[Seed]
    overrides: Overrides = {}

    def axes(self) -> dict[str, Sequence[Any]]:
        """What runs differ in, in the order of the matrix of their stage in studies/dvc.yaml."""
        return {"attempt": self.attempts, "seed": self.seeds}

    def runs(self) -> dict[str, dict[str, Any]]:
        """Each run's place on the axes, by its name as DVC makes it: ``ATTEMPT-...-SEED``."""
        axes = self.axes()
        return {
            "-".join(map(str, place)): dict(zip(axes, place, strict=True))
            for place in product(*axes.values())
        }

    def recipe(self, params: Params, run: Mapping[str, Any], source: str) -> Recipe:
        """The resolved recipe of one of `runs`; ``params`` have the attempts of studies, too."""
        recipe = overridden(params, run["attempt"], self.overrides, source=source)
        varied = run.keys() & SharedRecipe.model_fields.keys()
        return recipe.model_copy(update={key: run[key] for key in varied})

    @model_validator(mode="after")
    def _overrides_leave_what_varies(self) -> Study:
        varied = self.axes().keys()
        for key in self.overrides:
            if key in varied & SharedRecipe.model_fields.keys():
                raise ValueError(f"overrides.{key}: the study itself sets it, run by run")
            if key not in SharedRecipe.model_fields:
                known = ", ".join(name for name in SharedRecipe.model_fields if name not in varied)
                raise ValueError(f"overrides.{key}: unknown key. Known here: {known}")
        return self


class Budget(Study):
    """What more training ``tiles`` bring; a smaller set of them lies within a larger one."""

    tiles: Several[Count]

    def axes(self) -> dict[str, Sequence[Any]]:
        return {"attempt": self.attempts, "tiles": self.tiles, "seed": self.seeds}


class Seeds(Study):
    """How much of a difference between attempts is due to the seed."""

    @field_validator("seeds")
    @classmethod
    def _spread(cls, seeds: list[int]) -> list[int]:
        if len(seeds) < 2:
            raise ValueError(f"expected at least 2, found {len(seeds)}: one has no spread")
        return seeds


class Augmentations(Study):
    """Whether attempts with a frozen encoder prefer a milder augmentation.

    The answer compares the mean IoU under the ``mild`` presets with that under the ``strong`` ones,
    for each of ``frozen`` and for ``unfrozen``.
    """

    presets: Several[Augmentation]
    frozen: Several[str]
    unfrozen: str
    mild: Several[Augmentation]
    strong: Several[Augmentation]

    def axes(self) -> dict[str, Sequence[Any]]:
        return {"attempt": self.attempts, "augmentation": self.presets, "seed": self.seeds}

    def unlike(self, params: Params, source: str) -> dict[str, list[str]]:
        """By the label of each frozen attempt, in which keys it is not as the unfrozen one.

        Of its recipe, without what only freezing and this study decide. ``params`` have the
        attempts of studies, too.
        """
        against, *recipes = (
            overridden(params, attempt, self.overrides, source=source)
            for attempt in [self.unfrozen, *self.frozen]
        )
        return {
            recipe.label(attempt): [
                key
                for key in Recipe.model_fields
                if key not in ("freeze_epochs", "encoder_lr_factor", "augmentation")
                and getattr(recipe, key) != getattr(against, key)
            ]
            for attempt, recipe in zip(self.frozen, recipes, strict=True)
        }

    @model_validator(mode="after")
    def _compares_what_it_trains(self) -> Augmentations:
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


class Declared(Checked):
    budget: Budget
    seeds: Seeds
    augmentation: Augmentations


class Studies(Checked):
    """All of studies.yaml. ``attempts`` are those that only studies have, as in params.yaml."""

    attempts: Annotated[dict[str, dict[str, Any]], BeforeValidator(_something)]
    studies: Declared

    def study(self, name: str) -> Study:
        """The study of that name: ``budget``, ``seeds`` or ``augmentation``."""
        found: Study = getattr(self.studies, name)
        return found

    def named(self) -> dict[str, Study]:
        """All studies by name."""
        return {name: self.study(name) for name in Declared.model_fields}


def parse(text: str, model: type[Model], source: str) -> Model:
    """Read YAML 1.2 into a model; UserError names ``source``, the key and what was found."""
    try:
        return model.model_validate(parse_mapping(text, source))
    except ValidationError as error:
        # A misspelt key is a missing one too: what is there tells more than what is not.
        first = min(error.errors(), key=lambda found: found["type"] == "missing")
        key = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            said = "unknown key (misspelt?)"
        elif first["type"] == "missing":
            said = "missing; studies/profiles/ has complete files to compare with"
        elif first["type"] != "value_error":
            said = f"found {first['input']!r}; {said}"
        raise UserError(f"{source}: {key}: {said}") from None


def parse_studies(text: str, params: Params, source: str = "studies/studies.yaml") -> Studies:
    """Read studies.yaml and hold it against the parameters.

    Raises:
        UserError: naming ``source`` and the key: no YAML, unknown keys, attempts that are not
            there, overrides that an attempt's recipe refuses, or frozen encoders that are not
    """
    studies = parse(text, Studies, source)
    for name, block in studies.attempts.items():
        if "seed" in block:
            raise UserError(
                f"{source}: attempts.{name}.seed: each study says from which seeds it trains. Take "
                "this line out."
            )
    every = with_attempts(params, studies.attempts, source=source)
    for name, study in studies.named().items():
        key = f"{source}: studies.{name}"
        for attempt in study.attempts:
            if attempt not in every.attempts:
                raise UserError(
                    f"{key}.attempts: found {attempt!r}, which is neither in params.yaml nor among "
                    f"the attempts of {source}; they have: {', '.join(every.attempts)}"
                )
            overridden(every, attempt, study.overrides, source=f"{key}.overrides")
    comparison = studies.studies.augmentation
    for attempt in [*comparison.frozen, comparison.unfrozen]:
        recipe = overridden(every, attempt, comparison.overrides, source=source)
        if (recipe.thaw_epoch is None) != (attempt in comparison.frozen):
            raise UserError(
                f"{source}: studies.augmentation: {attempt} is compared as "
                f"{'frozen' if attempt in comparison.frozen else 'unfrozen'}, but its "
                f"freeze_epochs is {recipe.freeze_epochs}"
            )
    return studies


def with_attempts(
    params: Params, blocks: Mapping[str, Mapping[str, Any]], *, source: str
) -> Params:
    """Parameters with further attempts, none of them final; UserError for what they are not."""
    if known := [name for name in blocks if name in params.attempts]:
        raise UserError(
            f"{source}: attempts.{known[0]}: params.yaml has an attempt of that name; use that, or "
            "give this one a name of its own"
        )
    values = params.model_dump(mode="json")
    values["attempts"] |= blocks
    values["final"] |= dict.fromkeys(blocks)
    return _validated(values, source)


def overridden(
    params: Params, attempt: str, overrides: Mapping[str, Any], *, source: str
) -> Recipe:
    """The resolved recipe of an attempt with other values for some of its keys.

    It is held to all that holds for params.yaml; an error says ``source`` instead of that.
    """
    params.recipe(attempt)  # raises for an unknown one
    values = params.model_dump(mode="json")
    values["attempts"] = {attempt: {**params.attempts[attempt], **overrides}}
    values["final"] = {attempt: None}
    return _validated(values, source).recipe(attempt)


def _validated(values: Mapping[str, Any], source: str) -> Params:
    # JSON is YAML, too. YAML knows dates, and no key is one: the text of it will be refused.
    return parse_params(json.dumps(values, default=str), source)
