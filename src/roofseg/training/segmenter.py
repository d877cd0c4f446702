"""An attempt under its recipe, as a Lightning module: loss, optimizer, schedule, thaw, scores."""

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

# Where Lightning's checkpoints hold weights.
WEIGHTS = {"state_dict", "current_model_state"}


class NotFiniteError(UserError):
    """The loss or its gradient became NaN or infinite."""


class Segmenter(L.LightningModule):
    """A model under its recipe: loss, optimizer, schedule, and the thaw of its encoder.

    After each validation pass ``val_tiles`` holds the IoU of every val tile and ``val_masks`` its
    predicted mask, (P, P) uint8 {0, 1}.

    What a frozen encoder makes of val, and of the views in an augmentation pool, is computed once
    and kept in ``features``, up to ``feature_cache_gb`` GB for both together.
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
        """The encoder's features of (B, 3, H, W) uint8 RGB."""
        rgb = images.float().div_(255.0).contiguous(memory_format=torch.channels_last)
        return self.model.encode(rgb)

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
        # One pass over each weight instead of ten. Not on a GPU: there a fused step under float16
        # unscales the gradients itself, after they were clipped.
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
        # Dropout's random state follows from the seed and the epoch, as the draws do: so an epoch
        # can be run again. Each process of a run drops other values.
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
            *features, truth = (torch.cat(each) for each in zip(*views, strict=True))
            self._tiles = tuple(self._train.patches[index].tile for index, _ in batch)
        loss = self.loss(self.model.decode(features), truth)
        # The mean over all processes of a run: they stop together.
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
        train: TrainPatches = self.trainer.datamodule.train  # type: ignore[attr-defined]
        return train

    def _view(self, draw: Draw) -> list[torch.Tensor]:
        """The features of one view in the pool and, last, its mask (1, 1, H, W) uint8.

        Always of one view alone: in a batch, others would have a part in how its features round.
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

    # Twice, since an average of the weights, which has statistics of its own, takes the model's
    # place between the two.

    def on_validation_start(self) -> None:
        self._share_statistics()

    def on_validation_epoch_start(self) -> None:
        self._share_statistics()
        self.val_tiles, self.val_masks = {}, {}

    def _share_statistics(self) -> None:
        """Give all processes of a run the first one's BatchNorm statistics: each had other data."""
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
        tp, fp, fn, _ = (each.cpu().numpy() for each in count(probabilities, truth))
        self.val_tiles.update(zip(tiles, iou(tp, fp, fn).tolist(), strict=True))
        masks = (probabilities[:, 0] >= THRESHOLD).to(torch.uint8).cpu().numpy()
        self.val_masks.update(zip(tiles, masks, strict=True))
        size = len(tiles)
        self.log("val/loss", loss, batch_size=size)
        self.log("val/iou", float(iou(tp, fp, fn).mean()), batch_size=size)
        self.log("val/f1", float(f1(tp, fp, fn).mean()), batch_size=size)

    def learnt(self) -> dict[str, torch.Tensor]:
        """The model's weights, without those of a frozen encoder: the run began with them."""
        return {
            name: value
            for name, value in self.model.state_dict().items()
            if not (self.model.encoder_frozen and name.startswith("encoder."))
        }

    # With an average of the weights, a checkpoint has both: the average and the current ones.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = {f"model.{name}" for name in self.learnt()}
        for key in checkpoint.keys() & WEIGHTS:
            checkpoint[key] = {name: checkpoint[key][name] for name in sorted(names)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        encoder = self.model.encoder.state_dict(prefix="model.encoder.")
        for key in checkpoint.keys() & WEIGHTS:
            checkpoint[key] = {**encoder, **checkpoint[key]}
