"""Whole training runs of a small U-Net on tiny patches, through `roofseg.training.engine.train`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_dataset import tile_pixels

from roofseg.patches import Patch
from roofseg.recipe.params import Machine, Recipe
from roofseg.training.data import PatchBatches
from roofseg.training.engine import Trained, _quiet, train

P = 32
RECIPE = Recipe(
    architecture="unet",
    encoder="tu-mobilenetv3_small_050",
    prior="scratch",
    seed=7,
    epochs=3,
    draws_per_epoch=7,
    batch_size=2,
    lr=0.003,
    weight_decay=0.0001,
    augmentation="light",
    dropout=0.2,
    bce_weight=0.5,
    scheduler="constant",
    plateau_factor=0.5,
    plateau_patience=1,
    early_stopping_patience=5,
    freeze_epochs=0,
    encoder_lr_factor=1.0,
    gradient_clip=1.0,
    ema_decay=None,
    precision="32-true",
    augmentation_pool=None,
    algorithms="deterministic",
)
SMALL_VIT = {"architecture": "vit_conv", "encoder": "mobile_sam"}
MACHINE = Machine(
    device="cpu", devices=1, strategy="auto", workers=0, overlay_every=2, feature_cache_gb=1.0
)


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE.model_dump(), **changes})


def machine(**changes: Any) -> Machine:
    return Machine.model_validate({**MACHINE.model_dump(), **changes})


def patches(prefix: str, count: int) -> list[Patch]:
    return [Patch(f"{prefix}{seed}", *tile_pixels(seed, P)) for seed in range(count)]


TRAIN, VAL = patches("train", 4), patches("val", 3)


def as_bytes(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


@dataclass
class Run:
    """A finished training run; ``folder`` was its working directory."""

    folder: Path
    trained: Trained
    printed: str

    def curve(self, metric: str) -> pd.DataFrame:
        path = self.folder / "live" / "plots" / "metrics" / f"{metric}.tsv"
        return pd.read_csv(path, sep="\t")

    def weights(self) -> dict[str, bytes]:
        return as_bytes(self.trained.model)

    def files(self) -> dict[str, bytes]:
        """The bytes of the curves and pictures, by path."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}


def fit(
    module: L.LightningModule, data: PatchBatches, callbacks: list[Callback], **options: Any
) -> L.Trainer:
    """Train a module with Lightning alone: no state, no curves, no pictures."""
    with _quiet(set()):
        trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            **options,
        )
        trainer.fit(module, data)
    return trainer


def train_small(
    folder: Path,
    prior: Path,
    state: Path,
    *,
    train_patches: Sequence[Patch] = TRAIN,
    val_patches: Sequence[Patch] = VAL,
    on: Machine = MACHINE,
    parent: int | None = None,
    **changes: Any,
) -> Run:
    """Train in ``folder`` with ``changes`` to the recipe."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        trained = train(
            recipe(**changes),
            attempt="small",
            train_patches=train_patches,
            val_patches=val_patches,
            prior=prior,
            machine=on,
            live=Path("live"),
            overlays=Path("overlays"),
            state=state,
            parent=parent,
        )
    assert trained
    return Run(folder, trained, printed.getvalue())
