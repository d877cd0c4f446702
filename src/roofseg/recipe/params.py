"""The parameters in params.yaml, and the recipes of attempts that they define.

A recipe is everything that decides what an attempt learns. The machine that trains it (device,
workers) and the pictures drawn during training (overlays) are not part of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, ValidationError
from ruamel.yaml import YAML, YAMLError

from roofseg.core.errors import UserError
from roofseg.recipe.architectures import ARCHITECTURES, check_architecture, is_sam
from roofseg.recipe.checked import Checked
from roofseg.recipe.lora import Adaptation, check_lora
from roofseg.recipe.priors import (
    NAME,
    FilePrior,
    HubPrior,
    ModelPrior,
    Priors,
    Statistics,
    as_keys,
    check_moved,
)

# Names of files in metrics/ beside ATTEMPT.json, the scores that DVC shows.
TAKEN_NAMES = {"baselines", "leaderboard", "params_check"}
PATCH_MULTIPLE = 32  # pixels: the encoders halve a patch five times

Augmentation = Literal["none", "light", "medium", "heavy", "extreme"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class PatchSettings(Checked):
    """How patches are cut. Sizes are in pixels; fractions are of a patch's area."""

    dataset: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    patch_size: int = Field(gt=0, multiple_of=PATCH_MULTIPLE)
    min_building_fraction: Fraction


class Sources(Checked):
    """The datasets that stages bring: data/dvc.yaml has a stage for each item, and no others.

    Tiles that no stage brings are listed nowhere.
    """

    generated: list[Literal["sample"]]
    downloaded: list[Literal["inria"]]


class SharedRecipe(Checked):
    """The keys that all attempts share; an attempt's block may override any of them for itself."""

    seed: int = Field(ge=0, lt=2**32)
    epochs: int = Field(gt=0)
    draws_per_epoch: int = Field(gt=1)  # a batch of one draw is dropped (see `dropped_draws`)
    batch_size: int = Field(gt=0)
    lr: Annotated[float, Field(gt=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    augmentation: Augmentation
    dropout: Annotated[float, Field(ge=0, lt=1)]
    bce_weight: Fraction
    scheduler: Literal["plateau", "cosine", "constant"]
    plateau_factor: Annotated[float, Field(gt=0, lt=1)]
    plateau_patience: int = Field(ge=0)
    early_stopping_patience: int = Field(gt=0)
    freeze_epochs: Annotated[int, Field(ge=0)] | Literal["all"]
    encoder_lr_factor: Positive
    gradient_clip: Positive
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    precision: Precision
    augmentation_pool: Annotated[int, Field(ge=1)] | None
    algorithms: Literal["deterministic", "strict", "fast"]


class Recipe(Adaptation, SharedRecipe):
    """The resolved recipe of an attempt: its model, and the shared keys with its overrides.

    ``declared`` says which weights a prior holds that is not one of `PRIOR_ENCODERS`: the decisive
    part of its declaration in ``priors``. Such a recipe has this key, and no attempt's block has.
    """

    architecture: str
    encoder: str
    prior: str
    declared: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def statistics(self) -> Statistics | None:
        """Mean and standard deviation that the prior declares for the model's input."""
        declared = self.declared or {}
        return (tuple(declared["mean"]), tuple(declared["std"])) if "mean" in declared else None

    @property
    def prior_has_decoder(self) -> bool:
        """Whether the prior holds the weights of the whole model, not only of the encoder."""
        return (self.declared or {}).get("part") == "all"

    @property
    def thaw_epoch(self) -> int | None:
        """The first epoch (counted from 0) that trains the encoder; None if it stays frozen."""
        return None if self.freeze_epochs == "all" else self.freeze_epochs

    @property
    def without_sam(self) -> bool:
        """Whether a SAM encoder starts from random weights, which only tests that the code runs."""
        return is_sam(self.encoder) and self.prior == "scratch"

    def label(self, attempt: str) -> str:
        """The attempt's name for tables, plots and pictures."""
        return f"{attempt} (no SAM weights)" if self.without_sam else attempt

    def shortened(self) -> Recipe:
        """The same recipe with two epochs of two batches, for a quick test that training runs."""
        freeze = self.freeze_epochs if self.freeze_epochs == "all" else min(self.freeze_epochs, 1)
        draws = 2 * self.batch_size
        return self.model_copy(
            update={"epochs": 2, "draws_per_epoch": draws, "freeze_epochs": freeze}
        )


class Machine(Checked):
    """Settings of the machine, which are not part of a recipe.

    Device and number of devices still affect results (rounding, BatchNorm); the other keys do not.
    """

    device: Literal["auto", "cpu", "cuda", "mps"]
    devices: int = Field(gt=0)
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
    workers: int = Field(ge=0)
    overlay_every: int = Field(ge=0)
    feature_cache_gb: Positive


class EvaluationSettings(Checked):
    """Settings of evaluation. They are not part of a recipe."""

    evaluate_full_tiles: StrictBool


class Params(PatchSettings, SharedRecipe, Machine, EvaluationSettings):
    """All of params.yaml, validated. ``recipe(name)`` resolves an attempt."""

    sources: Sources
    priors: Priors
    attempts: dict[str, dict[str, Any]]
    final: dict[str, str | None]

    def recipe(self, attempt: str) -> Recipe:
        """The resolved recipe of an attempt.

        Raises:
            UserError: there is no such attempt, or its prior is the model of an attempt whose own
                prior leads back to this one
        """
        return self._recipe(attempt, ())

    def _recipe(self, attempt: str, after: tuple[str, ...]) -> Recipe:
        """``after`` lists the attempts whose priors led to this one."""
        if attempt not in self.attempts:
            raise UserError(
                f"attempt {attempt!r} is not in params.yaml; it has: {', '.join(self.attempts)}"
            )
        if attempt in after:
            raise UserError(f"prior: leads in a circle: {' -> '.join((*after, attempt))}")
        shared = {key: getattr(self, key) for key in SharedRecipe.model_fields}
        block = self.attempts[attempt]
        declared = self.declared_prior(block.get("prior"), (*after, attempt))
        return Recipe.model_validate({**shared, **block, "declared": declared})

    def declared_prior(self, name: Any, after: tuple[str, ...] = ()) -> dict[str, Any] | None:
        """What decides the weights of a prior, and how a model uses them; see `Recipe.declared`.

        Priors of `PRIOR_ENCODERS`, and names that are no priors, have none. ``after`` lists the
        attempts whose priors led to this one.
        """
        priors = self.priors
        if not isinstance(name, str) or name in priors.known:
            return None
        if found := priors.hub.get(name) or priors.files.get(name):
            return found.decisive()
        if not (model := priors.models.get(name)):
            return None
        earlier: Any = model.recipe
        statistics = model.statistics
        if attempt := model.attempt(self.attempts):
            recipe = self._recipe(attempt, after)
            earlier, statistics = recipe.model_dump(mode="json"), recipe.statistics
        return {"part": model.part, "recipe": earlier, **as_keys(statistics)}

    def recipes(self) -> dict[str, Recipe]:
        """The resolved recipes of all attempts, in the order of params.yaml."""
        return {name: self.recipe(name) for name in self.attempts}

    def machine(self) -> Machine:
        """The settings of the machine alone."""
        return Machine(**{key: getattr(self, key) for key in Machine.model_fields})


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
        found, held = getattr(recipe, key), getattr(earlier, key)
        if found != held:
            raise UserError(
                f"prior: found {recipe.prior!r}, which holds weights of {key} {held}, with {key} "
                f"{found}. Make the two equal"
                f"{', or set `part: encoder`' if key == 'architecture' else ''}."
            )


def dropped_draws(draws: int, batch_size: int, devices: int) -> int:
    """The number of draws in an epoch's last batch if that batch is dropped; otherwise 0.

    A last batch that is smaller than the others is dropped if it cannot be divided evenly among the
    devices, or if each device would get a single patch: BatchNorm cannot train on one value (the
    image pooling of DeepLabV3+). ``devices`` divides ``batch_size``.
    """
    last = draws % batch_size
    return last if last % devices or last == devices else 0


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
