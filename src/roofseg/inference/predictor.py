"""The interface of a trained model, its recipe.json, and test-time augmentation.

This module does not import torch, which takes seconds: code that only needs the size of a window
must not wait for it.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file

Images = npt.NDArray[np.uint8]  # (B, P, P, 3) RGB
# (B, P, P) in [0, 1]; or (B, 2, P, P) with the disagreement between models, see mapping.ensemble
Probabilities = npt.NDArray[np.float32]

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Backend = Literal["auto", "torch", "onnxruntime"]


class Predictor(Protocol):
    """A trained model, whatever library runs it.

    The same batch must give the same probabilities every time. Calls never overlap, but may come
    from different threads.
    """

    window: int
    """P, side of a window in pixels; the size of the patches that the model was trained on."""
    gsd: tuple[float, ...]
    """Ground sampling distances of the training tiles in metres per pixel, ascending; () where
    unknown."""
    provenance: dict[str, str]
    """Tags for the files made with this model: ROOFSEG_ATTEMPT, ROOFSEG_RECIPE_DIGEST,
    ROOFSEG_WEIGHTS_SHA256 (64 hex digits), ROOFSEG_PRECISION."""

    def __call__(self, images: Images) -> Probabilities:
        """Map images, (B, P, P, 3) uint8 RGB, to probabilities of building, (B, P, P) float32."""


class DeclaredInput(BaseModel):
    """The statistics of its input that a prior declares, per RGB channel on [0, 1], if it does."""

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class ArchitectureSpec(BaseModel):
    """The part of a recipe that defines the architecture."""

    architecture: str
    encoder: str
    dropout: float = Field(ge=0, lt=1)
    declared: DeclaredInput = DeclaredInput()

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of the input, if the recipe's prior declares them."""
        mean, std = self.declared.mean, self.declared.std
        return (mean, std) if mean and std else None


class ModelRecord(BaseModel):
    """The part of a model's recipe.json that prediction needs.

    ``patch_size`` is the side of the patches trained on, in pixels; ``gsd`` lists all GSDs trained
    on, in metres per pixel, and is empty where they are unknown.
    """

    attempt: str
    digest: str
    dataset: str
    patch_size: int = Field(gt=0)
    gsd: list[Annotated[float, Field(gt=0)]]
    recipe: ArchitectureSpec

    def provenance(self, folder: Path) -> dict[str, str]:
        """The tags of `Predictor.provenance` but for the precision; reads the weights' bytes.

        UserError if ``folder`` has no weights.
        """
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise UserError(
                f"{weights}: no such file, so the model has no weights. Get them with `dvc pull "
                f"{folder}`, or train it with `dvc repro`."
            )
        return {
            "ROOFSEG_ATTEMPT": self.attempt,
            "ROOFSEG_RECIPE_DIGEST": self.digest,
            "ROOFSEG_WEIGHTS_SHA256": sha256_file(weights),
        }


def read_record(folder: Path) -> ModelRecord:
    """Read recipe.json in a model's folder; UserError if it is missing or not a recipe."""
    path = folder / "recipe.json"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file. It describes the model and belongs beside model.safetensors: "
            f"get both with `dvc pull {folder}`, or train the model with `dvc repro`."
        )
    try:
        return ModelRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: {f'{key}: ' if key else ''}{first['msg']}; expected the recipe.json that "
            "training wrote. Restore it with `dvc checkout`, or train the model again."
        ) from None


class D4:
    """Test-time augmentation: the mean of a predictor over the eight symmetries of the square.

    An aerial view has no preferred direction, so all eight are equally valid inputs. Prediction
    takes eight times as long.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.window, self.gsd = predictor.window, predictor.gsd
        self.provenance = predictor.provenance

    def __call__(self, images: Images) -> Probabilities:
        total = np.zeros(())
        for mirrored, quarters in product((False, True), range(4)):
            turned = np.rot90(images[:, :, ::-1] if mirrored else images, quarters, (1, 2))
            found = self.predictor(np.ascontiguousarray(turned))
            upright = np.rot90(found, -quarters, (-2, -1))
            total = total + (upright[..., ::-1] if mirrored else upright)
        mean: Probabilities = (total / 8).astype(np.float32)
        return mean
