"""The Lightning module that trains an attempt: loss, optimizer, schedule, thaw and scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, ReduceLROnPlateau
from torch.utils.data import default_collate

from roofseg.core.errors import UserError
from roofseg.metrics import THRESHOLD, count, f1, iou
from roofseg.models.device import full_float32
from roofseg.models.roof_model import RoofModel
from roofseg.recipe.params import Recipe
from roofseg.training.data import Draw, TrainPatches
from roofseg.training.feature_cache import FeatureCache
from roofseg.training.loss import BceDiceLoss

# Keys of the weights in Lightning's checkpoints.
WEIGHTS = {"state_dict", "current_model_state"}


class NotFiniteError(UserError):
    """The loss or its gradient became NaN or infinite."""


class Segmenter(L.LightningModule):
    """Trains a model by its recipe: loss, optimizer, schedule, and thaw.

    The thaw is the epoch from which a frozen encoder is trained too, or its deltas if it is adapted
    by LoRA.

    After each validation pass ``val_tiles`` holds the IoU of every val tile and ``val_masks`` its
    predicted mask, (P, P) uint8 {0, 1}.

    A frozen encoder computes the features of a val tile, and of a view in an augmentation pool,
    once, as long as they fit: ``features`` keeps up to ``feature_cache_gb`` GB (10^9 bytes).
    """

    def __init__(self, model: RoofModel, recipe: Recipe, feature_cache_gb: float = 0.0) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.features = FeatureCache(feature_cache_gb)
        self.loss = BceDiceLoss(recipe.bce_weight)
        self.model.freeze_encoder(recipe.thaw_epoch != 0)
        self.val_tiles: dict[str, float] = {}
        self.val_masks: dict[str, Any] = {}
        self._tiles: tuple[str, ...] = ()

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's features of images, (B, 3, H, W) uint8 RGB."""
        rgb = images.float().div_(255.0).contiguous(memory_format=torch.channels_last)
        return self.model.encode(rgb)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        # AdamW neither updates nor decays parameters without a gradient. So the frozen encoder's
        # group can follow the schedule from the start, and at the thaw it has the current learning
        # rate times its factor.
        groups: list[dict[str, Any]] = [
            {"params": list(self.model.decoder_parameters()), "lr": recipe.lr},
            {
                "params": list(self.model.encoder_parameters()),
                "lr": recipe.lr * recipe.encoder_lr_factor,
            },
        ]
        # A fused step reads each weight once instead of ten times. On a GPU under float16 it would
        # unscale the gradients after they were clipped, so it is for CPUs only.
        fused = True if self.device.type == "cpu" else None
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=fused)
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
        # Dropout's random state depends on the seed and the epoch alone, as the draws do, so an
        # epoch can be repeated. Each process of a run drops different values.
        seeds = np.random.SeedSequence([self.recipe.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        thaw = self.recipe.thaw_epoch
        if self.model.encoder_frozen and thaw is not None and self.current_epoch >= thaw:
            self.model.freeze_encoder(False)
            self.features.clear()

    def training_step(self, batch: Any, step: int) -> torch.Tensor:
        if self.recipe.augmentation_pool is None:
            images, truth, self._tiles = batch
            features = self.encode(images)
        else:
            views = [
                self.features.get(("view", *draw), partial(self._view, draw)) for draw in batch
            ]
            *features, truth = (torch.cat(parts) for parts in zip(*views, strict=True))
            self._tiles = tuple(self._train.patches[index].tile for index, _ in batch)
        loss = self.loss(self.model.decode(features), truth)
        # Test the mean over all processes of the run, so that all of them stop at this step.
        if not torch.isfinite(mean := self.trainer.strategy.reduce(loss.detach())):
            raise self._not_finite("the loss", mean, self._tiles)
        self.log(
            "train/loss",
            loss,
            on_step=False,
            on_epoch=True,
            batch_size=len(self._tiles),
            sync_dist=True,
        )
        return loss

    @property
    def _train(self) -> TrainPatches:
        return self.trainer.datamodule.train  # type: ignore[attr-defined]

    def _view(self, draw: Draw) -> list[torch.Tensor]:
        """The features of one view in the pool, followed by its mask, (1, 1, H, W) uint8.

        Encodes one view at a time, since the rounding of features depends on the batch size.
        """
        image, mask, _ = default_collate([self._train[draw]])
        return [*self.encode(image.to(self.device)), mask.to(self.device)]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.recipe.gradient_clip)
        # Clipping multiplies by limit / norm: an infinite norm would make every weight NaN. Under
        # float16 an infinite norm is expected at times: the gradient scaler skips that step.
        if self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            raise self._not_finite("the gradient's norm", norm, self._tiles)

    def _not_finite(self, what: str, value: torch.Tensor, tiles: Sequence[str]) -> NotFiniteError:
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        return NotFiniteError(
            f"{what} is {value.item()} at epoch {self.current_epoch + 1}, step "
            f"{self.global_step + 1}, learning rate {lr:g}, tiles {', '.join(tiles)}. "
            "Lower lr or gradient_clip, or set precision: 32-true."
        )

    # Sync in both hooks: the averaging callback swaps the model between them, and the average has
    # BatchNorm statistics of its own.

    def on_validation_start(self) -> None:
        self._sync_statistics()

    def on_validation_epoch_start(self) -> None:
        self._sync_statistics()
        self.val_tiles, self.val_masks = {}, {}

    def _sync_statistics(self) -> None:
        """Copy the first process's BatchNorm statistics to all: each process saw different data."""
        if self.trainer.world_size > 1:
            for statistic in self.model.buffers():
                torch.distributed.broadcast(statistic, 0)

    def validation_step(self, batch: Any, step: int) -> None:
        images, truth, tiles = batch
        with full_float32(self.device.type):
            encode = partial(self.encode, images)
            frozen = self.model.encoder_frozen
            features = self.features.get(("val", step), encode) if frozen else encode()
            logits = self.model.decode(features)
            loss = self.loss(logits, truth)
        if not torch.isfinite(loss):
            raise self._not_finite("the val loss", loss, tiles)
        probabilities = logits.sigmoid()
        tp, fp, fn, _ = (n.cpu().numpy() for n in count(probabilities, truth))
        self.val_tiles.update(zip(tiles, iou(tp, fp, fn).tolist(), strict=True))
        masks = (probabilities[:, 0] >= THRESHOLD).to(torch.uint8).cpu().numpy()
        self.val_masks.update(zip(tiles, masks, strict=True))
        size = len(tiles)
        self.log("val/loss", loss, batch_size=size)
        self.log("val/iou", float(iou(tp, fp, fn).mean()), batch_size=size)
        self.log("val/f1", float(f1(tp, fp, fn).mean()), batch_size=size)

    # Under weight averaging a checkpoint has two sets of weights: the average and the current ones.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = {f"model.{name}" for name in self.model.trained_state_dict()}
        for key in checkpoint.keys() & WEIGHTS:
            checkpoint[key] = {name: checkpoint[key][name] for name in sorted(names)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        encoder = self.model.encoder.state_dict(prefix="model.encoder.")
        for key in checkpoint.keys() & WEIGHTS:
            checkpoint[key] = {**encoder, **checkpoint[key]}
