"""What a training run shows while it runs: a block of text, curves, and pictures of val."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
from dvclive import Live
from lightning.pytorch.callbacks import Callback

from roofseg.device import peak_memory_gb
from roofseg.figures import contact_sheet, overlay
from roofseg.files import write_png

METRICS = ("train/loss", "val/loss", "val/iou", "val/f1")


class EpochReport(Callback):
    """Logs every epoch with DVCLive (steps count epochs from 1) and prints a block about it."""

    def __init__(self, label: str, folder: Path) -> None:
        self.label = label
        self.best_epoch, self.best_val_iou, self.epochs_run = 0, -1.0, 0
        # DVC tracks these files by the stages of dvc.yaml: DVCLive must not write its own, nor
        # save an experiment.
        self._live = Live(str(folder), dvcyaml=None, save_dvc_exp=False)
        self._live.step = 1
        self._epoch_start = self._step_start = 0.0
        self._step_seconds: list[float] = []
        self._lr = 0.0

    def close(self) -> None:
        """Finish DVCLive's files (also after a run that broke off)."""
        self._live.end()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_start = time.monotonic()
        self._step_seconds = []
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_start(self, *args: Any) -> None:
        self._step_start = time.monotonic()

    def on_train_batch_end(self, *args: Any) -> None:
        self._step_seconds.append(time.monotonic() - self._step_start)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        values = {name: float(trainer.callback_metrics[name]) for name in METRICS}
        self.epochs_run = trainer.current_epoch + 1
        if values["val/iou"] > self.best_val_iou:
            self.best_epoch, self.best_val_iou = self.epochs_run, values["val/iou"]
        self._live.log_metric("lr", self._lr)
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.next_step()
        print(self._block(trainer, pl_module, values), flush=True)

    def _block(self, trainer: L.Trainer, module: Any, values: dict[str, float]) -> str:
        recipe, tiles = module.recipe, module.val_tiles
        worst = min(tiles, key=lambda tile: tiles[tile])
        steps = len(self._step_seconds)
        draws = min(recipe.draws_per_epoch, steps * recipe.batch_size)
        dropped = ", a last batch of one dropped" if draws < recipe.draws_per_epoch else ""
        frozen = ", encoder frozen" if module.model.encoder_frozen else ""
        best = " (best)" if self.best_epoch == self.epochs_run else ""
        step_ms = 1000 * sorted(self._step_seconds)[steps // 2]
        return "\n".join(
            [
                f"{self.label}  epoch {self.epochs_run}/{recipe.epochs}  lr {self._lr:g}{frozen}",
                f"  train  loss {values['train/loss']:.4f}  "
                f"n {draws}, {steps} steps of {recipe.batch_size}{dropped}",
                f"  val    loss {values['val/loss']:.4f}  IoU {values['val/iou']:.4f}  "
                f"F1 {values['val/f1']:.4f}{best}",
                "  tiles  " + "  ".join(f"{tile} {score:.3f}" for tile, score in tiles.items()),
                f"  worst  {worst} {tiles[worst]:.3f}",
                f"  memory {peak_memory_gb(trainer.strategy.root_device.type):.2f} GB  "
                f"step {step_ms:.0f} ms (median)  "
                f"epoch {time.monotonic() - self._epoch_start:.1f} s",
            ]
        )


class PredictionVisualizer(Callback):
    """Every ``every`` epochs, one picture of all val tiles: truth green, prediction red.

    Writes ``folder``/epoch_NNN.png; ``every`` 0 writes none. The folder is made in any case.
    """

    def __init__(self, label: str, folder: Path, every: int) -> None:
        self.label, self.folder, self.every = label, folder, every
        folder.mkdir(parents=True, exist_ok=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if self.every == 0 or epoch % self.every:
            return
        cells = []
        for patch in trainer.datamodule.val.patches:  # type: ignore[attr-defined]
            picture = overlay(patch.image, patch.mask, pl_module.val_masks[patch.tile])
            cells.append((picture, f"{patch.tile}  IoU {pl_module.val_tiles[patch.tile]:.3f}"))
        title = f"{self.label}, epoch {epoch}: truth green, prediction red"
        write_png(self.folder / f"epoch_{epoch:03d}.png", contact_sheet(cells, title))
