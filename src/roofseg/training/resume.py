"""Keep the state of a training run on disk after every epoch, so that a killed run can resume.

A state lives in a folder of its own, named after everything that decides the run's result, so no
other run can resume from it. `roofseg.core.run_states` says when it is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L  # noqa: N812
import torch
from filelock import FileLock, Timeout
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from roofseg.core.errors import UserError, explain_system_error
from roofseg.core.files import atomic_write, write_json
from roofseg.core.run_states import is_finished, is_locked, lock_file
from roofseg.core.weights import read_weights, write_weights
from roofseg.models.device import resolve_device, resolve_precision
from roofseg.recipe.params import Machine, Recipe

# If `dvc repro` is killed, the training process first finishes its step, which can take long on a
# CPU. A new run of the same attempt waits this many seconds for it.
PATIENCE_S = 60.0

# Libraries whose version can change the result.
LIBRARIES = (
    *("torch", "lightning", "segmentation-models-pytorch", "segment-anything", "timm"),
    *("albumentations", "opencv-python-headless", "numpy"),
)


def state_name(attempt: str, training_inputs: str, recipe: Recipe, machine: Machine) -> str:
    """The name of a run's state folder: the attempt, and a hash of what decides the result.

    ``training_inputs`` is the hash of recipe, data, code and prior (`recipe.digest.inputs_hash`);
    the name also covers the device, the precision resolved for it and the libraries' versions.
    """
    device = resolve_device(machine.device, machine.devices)
    deciding = [
        training_inputs,
        device,
        machine.devices,
        resolve_precision(recipe.precision, device),
        *(version(library) for library in LIBRARIES),
    ]
    return f"{attempt}@{hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16]}"


def is_first_process() -> bool:
    """Whether this is the first process of a run; a run has one process per device."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def locked_state(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[Path]:
    """Make a run's state folder and lock it. Only the first process of the run does so.

    If another run holds the lock, wait up to ``patience_s`` seconds. UserError if it still holds
    the lock then, or if the folder cannot be written.
    """
    if not is_first_process():
        yield folder
        return
    lock = FileLock(lock_file(folder))
    holder = folder / "holder.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for {_describe(holder)}, which trains the same run", flush=True)
            lock.acquire(timeout=patience_s)
            folder.mkdir(exist_ok=True)  # the other process may have removed it at its end
        for scratch in folder.glob(".*/"):  # left by a process that was killed while writing
            shutil.rmtree(scratch)
        write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()})
    except Timeout:
        raise UserError(
            f"{folder}: locked by {_describe(holder)}, which trains the same run. Wait until it "
            "ends or stop it, then run the same command again."
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot keep the state of the run: {explain_system_error(error) or error} "
            "Or set ROOFSEG_STATE_DIR to another folder."
        ) from None
    try:
        with suppress(OSError):  # other processes may remove files meanwhile
            _note_unfinished(folder)
        yield folder
    finally:
        lock.release()


def _note_unfinished(folder: Path) -> None:
    """Print the number and size of unfinished, unlocked states of other runs of the attempt."""
    attempt = folder.name.partition("@")[0]
    others = [
        other
        for other in folder.parent.glob(f"{attempt}@*/")
        if not is_finished(other) and not is_locked(other)
    ]
    if others:
        size = sum(file.stat().st_size for other in others for file in other.rglob("*"))
        print(
            f"note: {folder.parent} holds {len(others)} unfinished runs of {attempt} with other "
            f"inputs ({size / 1e6:.0f} MB). Remove those that you will not resume.",
            flush=True,
        )


def _describe(holder: Path) -> str:
    with suppress(OSError, ValueError):
        record = json.loads(holder.read_bytes())
        return f"process {record['pid']} on {record['host']}"
    return "another process"


class DurableCheckpoints(TorchCheckpointIO):
    """Writes Lightning's checkpoints completely or not at all, and flushes them to the disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        with atomic_write(Path(path), durable=True) as scratch:
            try:
                with scratch.open("wb") as file:
                    torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # torch's writer hides the OSError
                    raise error.__context__ from None
                raise


class KeepState(Callback):
    """Keeps the whole run on disk after each epoch, and the best weights by val IoU.

    It must come before a callback that averages weights: val is scored with the average, and the
    weights that were scored are the ones to keep. No random state is kept: draws, augmentation and
    dropout follow from the seed and the epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs = 0  # number of finished epochs that are kept
        self.best_epoch, self.best_val_iou = 0, -1.0
        self.nondeterministic: set[str] = set()  # names of operations, added during the run
        self.over = False  # whether the run has trained its last epoch

    @property
    def last(self) -> Path:
        """The checkpoint of the whole run after its last finished epoch."""
        return self.folder / "last.ckpt"

    def restore(self) -> Path | None:
        """Restore this callback and return the checkpoint to resume from; None if there is none.

        Raises UserError if the checkpoint is broken, and OSError if it cannot be read.
        """
        if not self.last.exists():
            return None
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True, mmap=True)
            self.load_state_dict(state["callbacks"][self.state_key])
            self.best_weights()
        except (RuntimeError, EOFError, KeyError, UnpicklingError, UserError) as error:
            raise UserError(
                f"{self.last}: not the complete state of a run ({error}). Remove {self.folder} to "
                "start the run from its beginning."
            ) from None
        return self.last

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The weights of the best epoch that differ from the initial ones."""
        return read_weights(self._best_file())

    def _best_file(self) -> Path:
        # Named by epoch: a run that is killed before the checkpoint is written still has the file
        # that the old checkpoint names.
        return self.folder / f"best-{self.best_epoch:03d}.safetensors"

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        val_iou = float(trainer.callback_metrics["val/iou"])
        if val_iou > self.best_val_iou:
            self.best_epoch, self.best_val_iou = trainer.current_epoch + 1, val_iou
            if trainer.is_global_zero:
                trained = pl_module.model.trained_state_dict()
                write_weights(self._best_file(), trained, durable=True)

    # An epoch is complete, with the scheduler's step, when the next one starts or the run ends.
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch > self.epochs:
            self._keep(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.over = True
        self._keep(trainer)

    def _keep(self, trainer: L.Trainer) -> None:
        before, self.epochs = self.epochs, trainer.current_epoch
        try:
            trainer.save_checkpoint(self.last)
        except OSError:
            self.epochs = before
            raise
        if trainer.is_global_zero:
            for file in self.folder.glob("best-*.safetensors"):
                if file != self._best_file():
                    file.unlink()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning has counted the next epoch as ready, but it has not started.
        for progress in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            progress["ready"] = progress["completed"]

    def state_dict(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "best_val_iou": self.best_val_iou,
            "nondeterministic": sorted(self.nondeterministic),
            "over": self.over,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_val_iou = state_dict["best_val_iou"]
        self.nondeterministic.update(state_dict["nondeterministic"])
        self.over = state_dict["over"]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # A run that early stopping ended has no epoch left to train.
        trainer.should_stop = checkpoint["callbacks"][self.state_key]["over"]
