"""Training one attempt: the shared recipe as a Lightning module, and the run around it."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    RichProgressBar,
)
from rich.console import Console
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, ReduceLROnPlateau

from roofseg.callbacks import EpochReport, PredictionVisualizer
from roofseg.data import PatchBatches
from roofseg.device import full_float32, resolve_device, resolve_precision
from roofseg.errors import UserError
from roofseg.losses import BceDiceLoss
from roofseg.metrics import THRESHOLD, count, f1, iou
from roofseg.models import RoofModel, build_model
from roofseg.patches import Patch
from roofseg.priors import load_prior
from roofseg.recipe import Machine, Recipe


class NotFiniteError(UserError):
    """The loss or its gradient became NaN or infinite."""


class Segmenter(L.LightningModule):
    """A model under its recipe: loss, optimizer, schedule, and the thaw of its encoder.

    After each validation pass ``val_tiles`` holds the IoU of every val tile and ``val_masks`` its
    predicted mask, (P, P) uint8 {0, 1}.
    """

    def __init__(self, model: RoofModel, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.loss = BceDiceLoss(recipe.bce_weight)
        self.model.freeze_encoder(recipe.thaw_epoch != 0)
        # A prior that is never thawed is left out of checkpoints: the run has it in memory.
        self.strict_loading = recipe.thaw_epoch is not None
        self.val_tiles: dict[str, float] = {}
        self.val_masks: dict[str, Any] = {}
        self._tiles: tuple[str, ...] = ()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 RGB to (B, 1, H, W) logits."""
        rgb = images.float().div_(255.0).contiguous(memory_format=torch.channels_last)
        return self.model(rgb)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        # Frozen parameters get no gradient, and AdamW passes over what has none (its weight decay
        # too). So the encoder's group follows the schedule from the start, and at the thaw it has
        # the current learning rate times its factor.
        groups: list[dict[str, Any]] = [
            {"params": list(self.model.decoder_parameters()), "lr": recipe.lr},
            {
                "params": list(self.model.encoder_parameters()),
                "lr": recipe.lr * recipe.encoder_lr_factor,
            },
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        schedulers: dict[str, Any] = {
            "plateau": lambda: ReduceLROnPlateau(
                optimizer, "max", factor=recipe.plateau_factor, patience=recipe.plateau_patience
            ),
            "cosine": lambda: CosineAnnealingLR(optimizer, recipe.epochs),
            "constant": lambda: ConstantLR(optimizer, factor=1.0),
        }
        scheduler = {"scheduler": schedulers[recipe.scheduler](), "monitor": "val/iou"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == self.recipe.thaw_epoch:
            self.model.freeze_encoder(False)

    def training_step(self, batch: Any, step: int) -> torch.Tensor:
        images, truth, self._tiles = batch
        loss = self.loss(self(images), truth)
        if not torch.isfinite(loss):
            raise self._not_finite("the loss", loss, self._tiles)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(self._tiles))
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.recipe.gradient_clip)
        # Clipping multiplies by limit / norm: with an infinite norm that makes NaN of every weight.
        # (Under float16 it is expected now and then: the gradient scaler skips such a step.)
        if self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            raise self._not_finite("the gradient's norm", norm, self._tiles)

    def _not_finite(self, what: str, value: torch.Tensor, tiles: Sequence[str]) -> NotFiniteError:
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        return NotFiniteError(
            f"{what} is {value.item()} at epoch {self.current_epoch + 1}, step "
            f"{self.global_step + 1}, learning rate {lr:g}, tiles {', '.join(tiles)}. "
            "Lower lr or gradient_clip, or set precision: 32-true."
        )

    def on_validation_epoch_start(self) -> None:
        self.val_tiles, self.val_masks = {}, {}

    def validation_step(self, batch: Any, step: int) -> None:
        images, truth, tiles = batch
        with full_float32(self.device.type):
            logits = self(images)
            loss = self.loss(logits, truth)
        if not torch.isfinite(loss):
            raise self._not_finite("the val loss", loss, tiles)
        probabilities = logits.sigmoid()
        tp, fp, fn, _ = (each.cpu().numpy() for each in count(probabilities, truth))
        self.val_tiles.update(zip(tiles, iou(tp, fp, fn).tolist(), strict=True))
        masks = (probabilities[:, 0] >= THRESHOLD).to(torch.uint8).cpu().numpy()
        self.val_masks.update(zip(tiles, masks, strict=True))
        size = len(tiles)
        self.log("val/loss", loss, batch_size=size)
        self.log("val/iou", float(iou(tp, fp, fn).mean()), batch_size=size)
        self.log("val/f1", float(f1(tp, fp, fn).mean()), batch_size=size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not self.strict_loading:
            for key in checkpoint.keys() & {"state_dict", "current_model_state"}:
                checkpoint[key] = {
                    name: value
                    for name, value in checkpoint[key].items()
                    if not name.startswith("model.encoder.")
                }


class EarlyStoppingAfterThaw(EarlyStopping):
    """Early stopping that does not look before the thaw, and so never ends a run before the thaw
    plus its patience."""

    def __init__(self, thaw_epoch: int, patience: int) -> None:
        super().__init__("val/iou", mode="max", patience=patience, check_on_train_epoch_end=False)
        self.thaw_epoch = thaw_epoch

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.thaw_epoch:
            super().on_validation_end(trainer, pl_module)


@dataclass(frozen=True)
class Trained:
    """A finished run: the model with its best weights (by val IoU, over the whole run).

    ``best_epoch`` counts from 1. ``failure`` is set where the run broke off; the weights are then
    the best until there.
    """

    model: RoofModel
    best_epoch: int
    best_val_iou: float
    epochs_run: int
    device: str
    precision: str
    seconds: float
    thaws: bool
    failure: NotFiniteError | None = None

    def record(self) -> dict[str, Any]:
        """What came out, but for the times: the same on every run on one machine."""
        sizes = {
            "encoder": sum(p.numel() for p in self.model.encoder_parameters()),
            "decoder": sum(p.numel() for p in self.model.decoder_parameters()),
        }
        trained = sizes["decoder"] + (sizes["encoder"] if self.thaws else 0)
        return {
            "best_epoch": self.best_epoch,
            "best_val_iou": self.best_val_iou,
            "epochs_run": self.epochs_run,
            "encoder_parameters": sizes["encoder"],
            "decoder_parameters": sizes["decoder"],
            "trainable_parameters": trained,
            "device": self.device,
            "precision": self.precision,
            "failure": str(self.failure) if self.failure else None,
        }

    def times(self) -> dict[str, float]:
        """Minutes of the whole run and seconds per epoch, validation included."""
        return {
            "minutes": round(self.seconds / 60, 2),
            "seconds_per_epoch": round(self.seconds / self.epochs_run, 2),
        }


def train(
    recipe: Recipe,
    *,
    attempt: str,
    train_patches: Sequence[Patch],
    val_patches: Sequence[Patch],
    prior: Path,
    machine: Machine,
    live: Path,
    overlays: Path,
) -> Trained:
    """Train a recipe from its prior and give back the best model.

    ``live`` is the folder for DVCLive's curves, ``overlays`` the one for pictures of val. Raises
    UserError for a prior that does not fit, a device that is not there, or a loss that stops being
    finite before the first validation.
    """
    device = resolve_device(machine.device)
    precision = resolve_precision(recipe.precision, device)
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    # Deterministic kernels would also fill every fresh tensor with NaN: for debugging, not for us.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    patch_size = train_patches[0].mask.shape[0]
    model = build_model(
        recipe.architecture, recipe.encoder, dropout=recipe.dropout, patch_size=patch_size
    )
    load_prior(model, prior)
    module = Segmenter(model.to(memory_format=torch.channels_last), recipe)
    batches = PatchBatches(
        train_patches,
        val_patches,
        preset=recipe.augmentation,
        draws=recipe.draws_per_epoch,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        workers=machine.workers,
    )
    report = EpochReport(recipe.label(attempt), live)
    pictures = PredictionVisualizer(recipe.label(attempt), overlays, machine.overlay_every)
    failure = None
    with tempfile.TemporaryDirectory(prefix="roofseg-") as folder, _quiet():
        # The best epoch, early stopping and the plateau's learning rate all follow from val alone.
        best = ModelCheckpoint(folder, monitor="val/iou", mode="max", enable_version_counter=False)
        trainer = L.Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=recipe.epochs,
            deterministic="warn",
            logger=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=Console().is_terminal,
            callbacks=[best, report, pictures, *_callbacks(recipe)],
        )
        start = time.monotonic()
        try:
            trainer.fit(module, batches)
        except NotFiniteError as error:
            if not best.best_model_path:
                raise
            failure = error
        finally:
            report.close()
        weights = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(weights["state_dict"], strict=module.strict_loading)
    return Trained(
        model=model.cpu().eval(),
        best_epoch=report.best_epoch,
        best_val_iou=report.best_val_iou,
        epochs_run=report.epochs_run,
        device=device,
        precision=precision,
        seconds=time.monotonic() - start,
        thaws=recipe.thaw_epoch is not None,
        failure=failure,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says of things that are meant as they are."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # A few dozen patches in memory: val needs no workers, and an epoch may be a few steps.
        warnings.filterwarnings("ignore", ".*does not have many workers.*", PossibleUserWarning)
        # A frozen encoder is in eval mode.
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        # Lightning 2.6.6 calls a torch function that torch 2.14 calls deprecated.
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")
        try:
            yield
        finally:
            logger.setLevel(level)


def _callbacks(recipe: Recipe) -> list[Callback]:
    callbacks: list[Callback] = [
        EarlyStoppingAfterThaw(recipe.thaw_epoch or 0, recipe.early_stopping_patience)
    ]
    if recipe.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema_decay))
    if Console().is_terminal:
        callbacks.append(RichProgressBar(leave=False))
    return callbacks
