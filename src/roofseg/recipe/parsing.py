"""Read params.yaml, check every key and every attempt, and explain the first mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError

from roofseg.core.errors import UserError
from roofseg.recipe.architectures import ARCHITECTURES, check_architecture
from roofseg.recipe.lora import check_lora
from roofseg.recipe.params import PATCH_MULTIPLE, Params, Recipe, Sources, dropped_draws
from roofseg.recipe.priors import (
    NAME,
    FilePrior,
    HubPrior,
    ModelPrior,
    Priors,
    check_moved,
    check_same,
)

# Names of files in metrics/ beside ATTEMPT.json, the scores that DVC shows.
TAKEN_NAMES = {"baselines", "leaderboard", "params_check"}


def parse_mapping(text: str, source: str) -> Mapping[str, Any]:
    """Read a mapping of keys to values from YAML text; a UserError names ``source``.

    In YAML 1.2, which ruamel.yaml reads, ``1e-05`` (as DVC writes it) is a number. PyYAML would
    read it as text.
    """
    try:
        values = YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:  # ValueError: a date in no calendar
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{source}: expected a mapping of keys to values, found {found}")
    return values


def parse_params(text: str, source: str = "params.yaml") -> Params:
    """Parse and validate parameters from YAML 1.2; a UserError names ``source`` and the key."""
    values = parse_mapping(text, source)
    check_moved(values, source)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error, source, "", Params)) from None
    if not params.attempts:
        raise UserError(f"{source}: attempts: expected at least one attempt, found none")
    try:
        params.priors.check(params.attempts)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    for name in params.attempts:
        _check_attempt(params, name, source)
    if unknown := [name for name in params.final if name not in params.attempts]:
        raise UserError(
            f"{source}: final.{unknown[0]}: no such attempt; attempts has: "
            f"{', '.join(params.attempts)}. Remove the line or correct its name."
        )
    return params


def read_params(path: Path) -> Params:
    """Read and validate a file of parameters; UserError if it cannot be read or is not valid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). Run from the folder that holds dvc.yaml; "
            "`roofseg profile sample` makes a params.yaml there."
        ) from None
    return parse_params(text, source=str(path))


def _check_attempt(params: Params, name: str, source: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(
            f"{source}: attempts.{name}: a name starts with a letter and holds only letters, "
            "digits, '_' and '-' (DVC uses it as a stage's name)"
        )
    if name in TAKEN_NAMES:
        raise UserError(
            f"{source}: attempts.{name}: another file is called metrics/{name}.json. Choose "
            "another name for the attempt."
        )
    if name not in params.final:
        raise UserError(
            f"{source}: final.{name} is missing: every attempt needs a line there. "
            f"Add `{name}: null` under final."
        )
    try:
        recipe = params.recipe(name)
        if "declared" in params.attempts[name]:
            raise UserError("declared: unknown key; `priors` declares what a prior holds")
        check_architecture(recipe.architecture, recipe.encoder)
        check_lora(recipe)
        params.priors.check_use(recipe.prior, recipe.encoder)
        _check_earlier_model(params, recipe)
    except ValidationError as error:
        raise UserError(_explain(error, source, f"attempts.{name}.", Recipe)) from None
    except UserError as error:
        raise UserError(f"{source}: attempts.{name}.{error}") from None
    if recipe.batch_size % params.devices:
        raise UserError(
            f"{source}: devices is {params.devices}, which does not divide the batch_size of "
            f"attempt {name} ({recipe.batch_size}): each device takes an equal share of a batch"
        )
    if recipe.batch_size == params.devices and (where := _batch_norm_of_one_value(params, recipe)):
        raise UserError(
            f"{source}: batch_size of attempt {name} is {recipe.batch_size}, one patch per device; "
            f"{where} has one value per patch, and BatchNorm needs at least two. Expected a "
            f"batch_size of {2 * params.devices} or more."
        )
    draws, batch = recipe.draws_per_epoch, recipe.batch_size
    if dropped_draws(draws, batch, params.devices) == draws:
        raise UserError(
            f"{source}: draws_per_epoch of attempt {name} is {draws}, less than one batch "
            f"(batch_size {batch}), and such a batch is dropped: it does not give each device "
            f"(devices: {params.devices}) the same number of patches, at least two. Nothing would "
            f"be trained. Expected draws_per_epoch of {batch} or more."
        )
    if recipe.thaw_epoch is not None and recipe.thaw_epoch >= recipe.epochs:
        raise UserError(
            f"{source}: freeze_epochs of attempt {name} is {recipe.thaw_epoch}, not less than its "
            f"epochs ({recipe.epochs}): the encoder would never be thawed. Lower freeze_epochs, or "
            "set `freeze_epochs: all` to train with a frozen encoder."
        )
    if recipe.augmentation_pool is not None and recipe.thaw_epoch is not None:
        raise UserError(
            f"{source}: augmentation_pool of attempt {name} is {recipe.augmentation_pool}, but its "
            f"freeze_epochs is {recipe.thaw_epoch}. A pool keeps the encoder's features of each "
            "view, so the encoder must stay frozen. Set `freeze_epochs: all`, or "
            "`augmentation_pool: null`, for this attempt."
        )


def _check_earlier_model(params: Params, recipe: Recipe) -> None:
    """Raise UserError if the prior is the model of another attempt, and does not fit this one."""
    model = params.priors.models.get(recipe.prior)
    if not model or not (attempt := model.attempt(params.attempts)):
        return
    earlier = params.recipe(attempt)
    for key in ("encoder", "architecture") if model.part == "all" else ("encoder",):
        check_same(recipe.prior, key, getattr(earlier, key), getattr(recipe, key))


def _batch_norm_of_one_value(params: Params, recipe: Recipe) -> str:
    """The BatchNorm layer that would train on one value per patch; "" if there is none."""
    pooling = {"deeplabv3plus": "image pooling", "upernet": "pyramid pooling"}
    if recipe.architecture in pooling:
        return f"the {pooling[recipe.architecture]} of {recipe.architecture}"
    if params.patch_size > PATCH_MULTIPLE:
        return ""
    if recipe.architecture == "dpt":
        return f"the deepest layer of dpt, at patch_size {PATCH_MULTIPLE},"
    if ARCHITECTURES[recipe.architecture] == "smp" and recipe.thaw_epoch is not None:
        return f"the last layer of an encoder, at patch_size {PATCH_MULTIPLE},"
    return ""


def _explain(error: ValidationError, source: str, prefix: str, model: type[BaseModel]) -> str:
    """The message about the first wrong key, or about a missing key if none is wrong."""

    def key_of(problem: Any) -> str:
        # After the key itself, pydantic appends the types that it tried for the value.
        depths = {"attempts": 2, "final": 2, "sources": 2, "priors": 4}
        depth = depths.get(problem["loc"][0], 1) if problem["loc"] else 0
        return prefix + ".".join(str(part) for part in problem["loc"][:depth])

    # A misspelt key is also a missing key; the misspelt name helps more.
    errors = sorted(error.errors(), key=lambda problem: problem["type"] == "missing")
    first, key = errors[0], key_of(errors[0])
    if first["type"] == "extra_forbidden":
        known = ", ".join(name for name in _block(key, model).model_fields if name != "declared")
        return f"{source}: {key}: unknown key (misspelt?). The known keys are: {known}"
    if first["type"] == "missing":
        return f"{source}: {key}: missing; profiles/ has complete files to compare with"
    expected = [
        problem["msg"].removeprefix("Value error, ") for problem in errors if key_of(problem) == key
    ]
    return f"{source}: {key}: found {first['input']!r}; {', or '.join(expected)}"


def _block(key: str, model: type[BaseModel]) -> type[BaseModel]:
    """The model of the block that holds a key."""
    match key.split("."):
        case ["sources", _]:
            return Sources
        case ["priors", _]:
            return Priors
        case ["priors", kind, _, _]:
            kinds: dict[str, type[BaseModel]]
            kinds = {"hub": HubPrior, "files": FilePrior, "models": ModelPrior}
            return kinds[kind]
    return model
