"""Show the progress of a training run: printed blocks, curves, and pictures of val."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
from dvclive import Live
from lightning.pytorch.callbacks import Callback

from roofseg.core.files import atomic_write
from roofseg.core.images import write_png
from roofseg.core.progress import bar
from roofseg.drawing import SheetGroup, contact_sheet, overlay
from roofseg.models.device import peak_memory_gb

METRICS = ("train/loss", "val/loss", "val/iou", "val/f1")


class EpochReport(Callback):
    """Logs every epoch with DVCLive (its steps are epochs, from 1) and prints a block of lines.

    A resumed run logs its earlier epochs again, since DVC removed their files. Only the first
    process of a run has a ``folder``; the others log and print nothing.
    """

    def __init__(self, label: str, folder: Path | None) -> None:
        self.label = label
        self.rows: list[dict[str, float]] = []
        self._live: Live | None = None
        if folder:
            # DVCLive must neither write a dvc.yaml, which the project has, nor save an experiment.
            self._live = Live(str(folder), dvcyaml=None, save_dvc_exp=False)
            self._live.step = 1
        self._earlier_seconds = 0.0
        self.peak_memory_gb = 0.0  # of the whole run; see `device.peak_memory_gb`
        self._start = self._epoch_start = self._step_start = time.monotonic()
        self._step_seconds: list[float] = []
        self._lr = 0.0

    @property
    def seconds(self) -> float:
        """Duration of the whole run, including the time before interruptions."""
        return self._earlier_seconds + time.monotonic() - self._start

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds, "peak_memory_gb": self.peak_memory_gb}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier_seconds = state_dict["seconds"]
        self.peak_memory_gb = state_dict["peak_memory_gb"]
        for row in state_dict["rows"]:
            self._log(row)

    def _log(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self._live:
            for name, value in row.items():
                self._live.log_metric(name, value)
            self._live.next_step()

    def __enter__(self) -> EpochReport:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Finish DVCLive's files; an OSError here must not replace the error of the block."""
        try:
            if self._live:
                self._live.end()
        except OSError:
            if error is None:
                raise

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
        best = all(values["val/iou"] > row["val/iou"] for row in self.rows)
        memory = peak_memory_gb(trainer.strategy.root_device.type)
        self.peak_memory_gb = max(self.peak_memory_gb, memory)
        self._log({"lr": self._lr, **values})
        if self._live:
            print(self._block(pl_module, values, best, memory), flush=True)

    def _block(self, module: Any, values: dict[str, float], best: bool, memory: float) -> str:
        recipe, tiles = module.recipe, module.val_tiles
        worst = min(tiles, key=lambda tile: tiles[tile])
        steps = len(self._step_seconds)
        draws = min(recipe.draws_per_epoch, steps * recipe.batch_size)
        missing = recipe.draws_per_epoch - draws
        dropped = f", a last batch of {missing} dropped" if missing else ""
        frozen = ", encoder frozen" if module.model.encoder_frozen else ""
        if module.model.adapted and not frozen:
            frozen = f", encoder adapted by {recipe.lora}"
        if module.features.full:
            frozen += " (feature_cache_gb is full: some features are computed again in every epoch)"
        step_ms = 1000 * sorted(self._step_seconds)[steps // 2]
        return "\n".join(
            [
                f"{self.label}  epoch {len(self.rows)}/{recipe.epochs}  lr {self._lr:g}{frozen}",
                f"  train  loss {values['train/loss']:.4f}  "
                f"n {draws}, {steps} steps of {recipe.batch_size}{dropped}",
                f"  val    loss {values['val/loss']:.4f}  IoU {values['val/iou']:.4f}  "
                f"F1 {values['val/f1']:.4f}{' (best)' if best else ''}",
                "  tiles  " + "  ".join(f"{tile} {score:.3f}" for tile, score in tiles.items()),
                f"  worst  {worst} {tiles[worst]:.3f}",
                f"  memory {memory:.2f} GB  "
                f"step {step_ms:.0f} ms (median)  "
                f"epoch {time.monotonic() - self._epoch_start:.1f} s",
            ]
        )


class StepBar(Callback):
    """Shows a bar of the steps of the whole run where there is a terminal.

    Without one, the blocks of `EpochReport` show the progress.
    """

    def __init__(self) -> None:
        self._open = ExitStack()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        steps, epochs = int(trainer.num_training_batches), int(trainer.max_epochs or 0)
        done = trainer.current_epoch * steps
        self._bar = self._open.enter_context(
            bar("Training", steps * epochs, done=done, lines=False)
        )

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._bar.update(description=f"Epoch {trainer.current_epoch + 1} of {trainer.max_epochs}")

    def on_train_batch_end(self, *args: Any) -> None:
        self._bar.advance()

    def on_train_end(self, *args: Any) -> None:
        self._open.close()

    def on_exception(self, *args: Any) -> None:
        self._open.close()


class PredictionVisualizer(Callback):
    """Draws all val tiles in one picture every ``every`` epochs, and after the last of ``epochs``.

    Truth is green, the prediction red. The pictures are ``folder``/epoch_NNN.png; if ``every`` is 0
    there are none, but ``folder`` is still made. ``state`` keeps copies for a resumed run, which
    may have another ``every``.
    """

    def __init__(self, label: str, folder: Path, every: int, epochs: int, state: Path) -> None:
        self.label, self.folder, self.state = label, folder, state
        self.every, self.epochs = every, epochs
        for path in (folder, state):
            path.mkdir(parents=True, exist_ok=True)
        for picture in state.glob("epoch_*.png"):
            if self._wants(int(picture.stem.partition("_")[2])):
                shutil.copyfile(picture, folder / picture.name)

    def _wants(self, epoch: int) -> bool:
        return self.every > 0 and (epoch % self.every == 0 or epoch == self.epochs)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if not self._wants(epoch):
            return
        cells = []
        for patch in trainer.datamodule.val:  # type: ignore[attr-defined]
            picture = overlay(patch.image, patch.mask, pl_module.val_masks[patch.tile])
            cells.append((picture, f"{patch.tile}\nIoU {pl_module.val_tiles[patch.tile]:.3f}"))
        title = f"{self.label}, epoch {epoch}: truth green, prediction red"
        name = f"epoch_{epoch:03d}.png"
        with atomic_write(self.state / name, durable=True) as scratch:
            write_png(scratch, contact_sheet(title, [SheetGroup(cells)]))
        shutil.copyfile(self.state / name, self.folder / name)
