"""The state of a training run on disk, after every epoch: a run that was killed goes on from there.

A state lives in a folder of its own, named after all that decides the run's result, so nothing else
picks it up; it is removed when the run has written its outputs.
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

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write, write_json
from roofseg.core.weights import read_weights, write_weights
from roofseg.models.device import resolve_device, resolve_precision
from roofseg.recipe.params import Machine, Recipe

# An orphan of a killed `dvc repro` ends after its step, and a step can be long on a CPU.
PATIENCE_S = 60.0

# Whose code has a part in what a run computes.
LIBRARIES = (
    *("torch", "lightning", "segmentation-models-pytorch", "segment-anything", "timm"),
    *("albumentations", "opencv-python-headless", "numpy"),
)


def state_name(attempt: str, training_inputs: str, recipe: Recipe, machine: Machine) -> str:
    """The name of a run's folder: its attempt and a hash of all that decides its result.

    ``training_inputs`` is the hash of recipe, data, code and prior (`recipe.digest.inputs_hash`);
    to it come the device, the precision resolved for it, and the versions of the libraries.
    """
    device = resolve_device(machine.device, machine.devices)
    decides = [
        training_inputs,
        device,
        machine.devices,
        resolve_precision(recipe.precision, device),
        *(version(library) for library in LIBRARIES),
    ]
    return f"{attempt}@{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]}"


def is_first_process() -> bool:
    """Whether this is the first, or only, process of a run; with several devices each has one."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def held(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[Path]:
    """Hold the state of a run, alone; at the end of the block, unless it raised, it is removed.

    A process that finds it held waits ``patience_s`` seconds. Of the processes of one run (one per
    device) the first holds it. What the block wrote is on the disk before the state goes.

    Raises:
        UserError: another process holds it for longer, or the folder cannot be written
    """
    if not is_first_process():
        yield folder
        return
    lock = FileLock(_lock_file(folder))
    holder = folder / "holder.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for {_describe(holder)}, which trains the same run", flush=True)
            lock.acquire(timeout=patience_s)
            folder.mkdir(exist_ok=True)  # the other may have ended, and removed it
        for scratch in folder.glob(".*/"):  # of a process that was killed while it wrote
            shutil.rmtree(scratch)
        write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()})
    except Timeout:
        raise UserError(
            f"{folder}: held by {_describe(holder)}, which trains the same run. Wait for its end "
            "or stop it, then give the same command again."
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder}: the state of the run cannot be kept there ({error}). Make room or mend its "
            "permissions, or set ROOFSEG_STATE_DIR to another folder."
        ) from None
    try:
        with suppress(OSError):  # others come and go meanwhile
            _note_others(folder)
        yield folder
        os.sync()
        # Before the lock goes: who waits for it must not find the state of a run that is over. And
        # at once: one that lacks some files would be no state to go on from.
        gone = folder.with_name(f".{folder.name}")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


def _note_others(folder: Path) -> None:
    attempt = folder.name.partition("@")[0]
    others = [each for each in folder.parent.glob(f"{attempt}@*/") if _is_nobodys(each)]
    if others:
        size = sum(file.stat().st_size for each in others for file in each.rglob("*"))
        print(
            f"note: {folder.parent} holds {len(others)} unfinished runs of {attempt} with other "
            f"inputs ({size / 1e6:.0f} MB). Remove those that nobody will go on with.",
            flush=True,
        )


def _is_nobodys(folder: Path) -> bool:
    try:
        with FileLock(_lock_file(folder), timeout=0):
            return True
    except Timeout:
        return False


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _describe(holder: Path) -> str:
    with suppress(OSError, ValueError):
        found = json.loads(holder.read_bytes())
        return f"process {found['pid']} on {found['host']}"
    return "another process"


class DurableCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written whole or not at all, and on the disk before they count."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        with atomic_write(Path(path), durable=True) as scratch:
            try:
                with scratch.open("wb") as file:
                    torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # torch's writer hides what it met
                    raise error.__context__ from None
                raise


class KeepState(Callback):
    """Keeps all of a run after each epoch, and the best weights (by val IoU) of the whole run.

    It has to come before a callback that averages weights: val is scored with the average, and the
    best weights are those that were scored. Random states are no part of it: draws, augmentation
    and dropout follow from the seed and the epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs = 0  # finished and kept
        self.best_epoch, self.best_val_iou = 0, -1.0
        self.nondeterministic: set[str] = set()  # operations, as the run meets them
        self._over = False

    @property
    def last(self) -> Path:
        """All of the run after its last finished epoch."""
        return self.folder / "last.ckpt"

    def found(self) -> Path | None:
        """The state to go on from, if there is one; UserError where it is broken."""
        if not self.last.exists():
            return None
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True, mmap=True)
            self.load_state_dict(state["callbacks"][self.state_key])
            self.best_weights()
        except (RuntimeError, OSError, EOFError, KeyError, UnpicklingError, UserError) as error:
            raise UserError(
                f"{self.last}: not a whole state of a run ({error}). Remove {self.folder} to begin "
                "the run anew."
            ) from None
        return self.last

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The weights of the best epoch; without the encoder's where it was frozen then."""
        return read_weights(self._best_file())

    def _best_file(self) -> Path:
        # By epoch: a run killed between this file and the state still has the one before.
        return self.folder / f"best-{self.best_epoch:03d}.safetensors"

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        val_iou = float(trainer.callback_metrics["val/iou"])
        if val_iou > self.best_val_iou:
            self.best_epoch, self.best_val_iou = trainer.current_epoch + 1, val_iou
            if trainer.is_global_zero:
                with atomic_write(self._best_file(), durable=True) as scratch:
                    write_weights(scratch, pl_module.learnt())

    # An epoch is over, with the scheduler's step, only when the next begins or the run ends.
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch > self.epochs:
            self._keep(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._over = True
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
        # Between two epochs: Lightning has announced the next one, which has not begun.
        for progress in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            progress["ready"] = progress["completed"]

    def state_dict(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "best_val_iou": self.best_val_iou,
            "nondeterministic": sorted(self.nondeterministic),
            "over": self._over,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_val_iou = state_dict["best_val_iou"]
        self.nondeterministic.update(state_dict["nondeterministic"])
        self._over = state_dict["over"]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Early stopping had ended it: there is no epoch to go on with.
        trainer.should_stop = checkpoint["callbacks"][self.state_key]["over"]
