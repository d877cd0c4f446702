"""Observe a real training run, with the engine's own trainer and callbacks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler

from roofseg.patches import Patch
from roofseg.recipe.params import Machine, Recipe
from roofseg.training.engine import train


def watch(
    recipe: Recipe,
    machine: Machine,
    patches: tuple[Sequence[Patch], Sequence[Patch]],
    prior: Path,
    folder: Path,
    *,
    profiler: Profiler | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train a recipe on train and val patches; all outputs are written below ``folder``.

    ``profiler`` is passed to Lightning; ``callbacks`` are called after the run's own.
    """
    trainer = L.Trainer

    def watched(**options: Any) -> L.Trainer:
        own = options.pop("callbacks")
        return trainer(**options, callbacks=[*own, *callbacks], profiler=profiler)

    with mock.patch.object(L, "Trainer", watched), redirect_stdout(io.StringIO()):
        train(
            recipe,
            attempt="benchmark",
            train_patches=patches[0],
            val_patches=patches[1],
            prior=prior,
            machine=machine,
            live=folder / "live",
            overlays=folder / "overlays",
            state=folder / "state",
        )
