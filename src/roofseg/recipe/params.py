"""The parameters in params.yaml, and the recipes of attempts that they define.

A recipe is everything that decides what an attempt learns. The machine that trains it (device,
workers) and the pictures drawn during training (overlays) are not part of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool

from roofseg.core.errors import UserError
from roofseg.recipe.architectures import is_sam
from roofseg.recipe.checked import Checked
from roofseg.recipe.lora import Adaptation
from roofseg.recipe.priors import Priors, Statistics, as_keys, check_same

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
        """Whether a SAM encoder starts from random weights, which only tests that the code runs.

        Also along a chain of models of this project, the first of which started so.
        """
        earlier = (self.declared or {}).get("recipe")
        if isinstance(earlier, dict):
            return Recipe.model_validate(earlier).without_sam
        return is_sam(self.encoder) and self.prior == "scratch"

    def label(self, attempt: str) -> str:
        """The attempt's name for tables, plots and pictures."""
        return f"{attempt} (no SAM weights)" if self.without_sam else attempt

    def check_prior(self, record: Mapping[str, Any]) -> None:
        """Raise UserError if the prior holds weights of another encoder or architecture.

        ``record`` is weights/PRIOR.json. Models of other projects are declared without these.
        """
        check_same(self.prior, "encoder", record["encoder"], self.encoder)
        if self.prior_has_decoder:
            check_same(
                self.prior, "architecture", record["model"]["architecture"], self.architecture
            )

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
        """The part of a prior's declaration that a recipe digest covers; see `Recipe.declared`.

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


def dropped_draws(draws: int, batch_size: int, devices: int) -> int:
    """The number of draws in an epoch's last batch if that batch is dropped; otherwise 0.

    A last batch that is smaller than the others is dropped if it cannot be divided evenly among the
    devices, or if each device would get a single patch: BatchNorm cannot train on one value (the
    image pooling of DeepLabV3+). ``devices`` divides ``batch_size``.
    """
    last = draws % batch_size
    return last if last % devices or last == devices else 0
