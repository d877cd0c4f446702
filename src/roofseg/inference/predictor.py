"""The interface of a trained model, its recipe.json, and test-time augmentation.

Does not import torch, which takes seconds: code that only needs a window's size must not wait.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from roofseg.core.errors import UserError

Images = npt.NDArray[np.uint8]  # (B, P, P, 3) RGB
Probabilities = npt.NDArray[np.float32]  # (B, P, P) in [0, 1]

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


class Predictor(Protocol):
    """A trained model, whatever library runs it.

    The same batch must give the same probabilities every time. Calls never overlap, but may come
    from different threads.
    """

    window: int
    """P: side of a window, in pixels; the size of the patches trained on."""
    gsd: tuple[float, ...]
    """Ground sampling distances trained on, in metres per pixel, ascending; () where unknown."""
    provenance: dict[str, str]
    """Tags for the files made with this model: ROOFSEG_ATTEMPT, ROOFSEG_RECIPE_DIGEST,
    ROOFSEG_WEIGHTS_SHA256 (64 hex digits; the same weights have the same), ROOFSEG_PRECISION."""

    def __call__(self, images: Images) -> Probabilities:
        """The probability of building: (B, P, P, 3) uint8 RGB to (B, P, P) float32 in [0, 1]."""


class ArchitectureSpec(BaseModel):
    """The part of a recipe that defines the architecture."""

    architecture: str
    encoder: str
    dropout: float = Field(ge=0, lt=1)


class ModelRecord(BaseModel):
    """The part of a model's recipe.json that prediction needs.

    ``gsd``: all GSDs trained on, metres per pixel; ``patch_size`` in pixels.
    """

    attempt: str
    digest: str
    dataset: str
    patch_size: int = Field(gt=0)
    gsd: list[Annotated[float, Field(gt=0)]]
    recipe: ArchitectureSpec


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
            "training wrote. Get it with `dvc checkout`, or train the model again."
        ) from None


class D4:
    """A predictor's mean over the eight symmetries of the square (test-time augmentation).

    Aerial views have no up. Takes eight times as long.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.window, self.gsd = predictor.window, predictor.gsd
        self.provenance = predictor.provenance

    def __call__(self, images: Images) -> Probabilities:
        total = np.zeros(images.shape[:3])
        for there, back in SYMMETRIES:
            total += back(self.predictor(np.ascontiguousarray(there(images))))
        mean: Probabilities = (total / len(SYMMETRIES)).astype(np.float32)
        return mean


Turn = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def _symmetry(quarters: int, mirrored: bool) -> tuple[Turn, Turn]:
    """A turn by quarters after an optional mirroring, of axes 1 and 2; and its inverse."""

    def there(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.rot90(array[:, :, ::-1] if mirrored else array, quarters, (1, 2))

    def back(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        turned = np.rot90(array, -quarters, (1, 2))
        return turned[:, :, ::-1] if mirrored else turned

    return there, back


SYMMETRIES = [_symmetry(quarters, mirrored) for mirrored in (False, True) for quarters in range(4)]
