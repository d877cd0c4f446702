"""The keys of an attempt that adapt its encoder by LoRA, and their check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator, model_validator

from roofseg.core.errors import UserError
from roofseg.recipe.architectures import ARCHITECTURES
from roofseg.recipe.checked import Checked

if TYPE_CHECKING:
    from roofseg.recipe.params import Recipe

TARGETS = ["proj", "qkv"]  # the projections of attention; all ViTs here have these names


@dataclass(frozen=True)
class Lora:
    """How an encoder is adapted (`roofseg.models.lora`).

    Attributes:
        rank: of the matrix that is added to the weight of a layer
        alpha: that matrix is multiplied by alpha / rank
        targets: the last parts of the names of the layers
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"LoRA of rank {self.rank}"


def _unset(value: Any) -> bool:
    return value is None


class Adaptation(Checked):
    """The keys of LoRA. A recipe without them has none of them, in its record and digest either."""

    lora_rank: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=_unset)
    lora_alpha: Annotated[float, Field(gt=0)] | None = Field(default=None, exclude_if=_unset)
    lora_targets: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, exclude_if=_unset
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Alpha is the rank, which leaves the scale at 1."""
        if not isinstance(values, Mapping) or values.get("lora_rank") is None:
            return values
        given = {key: value for key, value in values.items() if value is not None}
        return {**values, "lora_alpha": values["lora_rank"], "lora_targets": TARGETS, **given}

    @field_validator("lora_targets")
    @classmethod
    def _in_one_order(cls, values: list[str] | None) -> list[str] | None:
        """Sorted, since the digest must not depend on their order."""
        if values and len(set(values)) < len(values):
            raise ValueError("expected each name once")
        return values and sorted(values)

    @property
    def lora(self) -> Lora | None:
        """The adaptation of the encoder; None if it has none."""
        if self.lora_rank is None or self.lora_alpha is None or self.lora_targets is None:
            return None
        return Lora(self.lora_rank, self.lora_alpha, tuple(self.lora_targets))


def check_lora(recipe: Recipe) -> None:
    """Raise UserError if the rest of a recipe contradicts its keys of LoRA.

    Which layers an encoder has is checked when it is built.
    """
    if recipe.lora is None:
        for key in ("lora_alpha", "lora_targets"):
            if (found := getattr(recipe, key)) is not None:
                raise UserError(
                    f"{key}: found {found!r} without a lora_rank, so nothing would be adapted. Add "
                    f"lora_rank, for example 8, or remove {key}."
                )
        return
    if ARCHITECTURES[recipe.architecture] == "smp":
        vits = ", ".join(name for name, takes in ARCHITECTURES.items() if takes != "smp")
        raise UserError(
            f"lora_rank: found {recipe.lora_rank} with architecture {recipe.architecture!r}; LoRA "
            f"adapts the vision transformers of {vits}. Remove lora_rank, or change the "
            "architecture."
        )
    if recipe.thaw_epoch is None:
        raise UserError(
            f"lora_rank: found {recipe.lora_rank} with `freeze_epochs: all`, which would never "
            "train what LoRA adds. Set `freeze_epochs: 0` for this attempt; the encoder's own "
            "weights stay frozen all the same."
        )
    if recipe.augmentation_pool is not None:
        raise UserError(
            f"lora_rank: found {recipe.lora_rank} with an augmentation_pool of "
            f"{recipe.augmentation_pool}. A pool keeps the encoder's features of each view, and "
            "LoRA changes them. Set `augmentation_pool: null` for this attempt."
        )
