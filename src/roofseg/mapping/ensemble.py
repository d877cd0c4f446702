"""Several models as one: the mean of their probabilities, and how far they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from roofseg.core.errors import UserError
from roofseg.inference.predictor import Images, Predictor, Probabilities
from roofseg.sliding_window.imagery import GSD_TOLERANCE

WEIGHTS = "ROOFSEG_WEIGHTS_SHA256"


class Ensemble:
    """A `roofseg.inference.predictor.Predictor` that averages others.

    Args:
        models: predictors of windows of one size and one GSD, each after the name that errors
            use; their order changes nothing
        disagreement: also give the standard deviation between the models

    A call gives (B, P, P) float32, the mean of the probabilities; with ``disagreement`` (B, 2, P,
    P), the mean and the standard deviation (of the population, so [0, 0.5]).

    Raises:
        UserError: two models are the same, or differ in their windows or GSDs
    """

    def __init__(
        self, models: Sequence[tuple[Path, Predictor]], *, disagreement: bool = False
    ) -> None:
        _check(models)
        # In one order, however they were named: sums of floats depend on it.
        self.models = sorted(
            (model for _, model in models), key=lambda model: model.provenance[WEIGHTS]
        )
        self.disagreement = disagreement
        first = self.models[0]
        self.window = first.window
        self.gsd = tuple(sorted({gsd for model in self.models for gsd in model.gsd}))
        self.provenance = {
            key: ", ".join(model.provenance[key] for model in self.models)
            for key in first.provenance
        }

    def __call__(self, images: Images) -> Probabilities:
        """Predict with every model; see the class for what is returned."""
        each = np.stack([model(images) for model in self.models])
        mean = each.mean(axis=0, dtype=np.float64)
        if not self.disagreement:
            return mean.astype(np.float32)
        spread = each.std(axis=0, dtype=np.float64)
        return np.stack([mean, spread], axis=1).astype(np.float32)


def _check(models: Sequence[tuple[Path, Predictor]]) -> None:
    (first, reference), *others = models
    seen = {reference.provenance[WEIGHTS]: first}
    for name, model in others:
        weights = model.provenance[WEIGHTS]
        if weights in seen:
            raise UserError(
                f"--model {name}: has the same weights as {seen[weights]}, which would count "
                "twice. Name each model once."
            )
        seen[weights] = name
        if model.window != reference.window:
            raise UserError(
                f"--model {name}: was trained on patches of {model.window} px, but {first} on "
                f"{reference.window} px. Models that map together need windows of one size: map "
                "with one of them, or train them on the same patches."
            )
        if not _same_scale(model.gsd, reference.gsd):
            raise UserError(
                f"--model {name}: was trained at {_metres(model.gsd)}, but {first} at "
                f"{_metres(reference.gsd)}. Models that map together see the same pixels: map with "
                "one of them, or train them at one GSD."
            )


def _same_scale(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two models know roofs of the same size in pixels, as far as their GSDs are known."""
    if not (one and other):
        return one == other
    ends = ((one[0], other[0]), (one[-1], other[-1]))
    return all(abs(a / b - 1) <= GSD_TOLERANCE for a, b in ends)


def _metres(gsd: tuple[float, ...]) -> str:
    ends = dict.fromkeys(f"{value:g} m" for value in (gsd[:1] + gsd[-1:]))
    return " to ".join(ends) or "an unknown GSD"
