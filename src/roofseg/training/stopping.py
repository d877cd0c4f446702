"""Stopping a run between two steps: on a signal, or when the process that started it is gone."""

from __future__ import annotations

import os
import signal
from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Callback

from roofseg.core.errors import StoppedError

# SIGHUP: the terminal, the notebook or the connection was closed.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def is_orphan(parent: int | None) -> bool:
    """Whether ``parent``, which started this process, is gone; False where it is None."""
    return parent is not None and os.getppid() != parent


class StopBetweenSteps(Callback):
    """On SIGTERM, SIGHUP or Ctrl-C finishes the step and raises StoppedError; a second one kills.

    ``parent`` is the process whose end stops the run too, or None: killing `dvc` leaves the stage
    that it started running, beside the one that the next `dvc repro` starts.
    """

    def __init__(self, parent: int | None) -> None:
        self.parent = parent
        self.requested: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Here, since Lightning puts its own handlers in force when fit begins; at its end it
        # restores those that were there before.
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, self._request)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._stop_if_requested(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._stop_if_requested(trainer)

    def _request(self, number: int, frame: object) -> None:
        self.requested = number
        signal.signal(number, signal.SIG_DFL)

    def _stop_if_requested(self, trainer: L.Trainer) -> None:
        if is_orphan(self.parent):
            self.requested = self.requested or signal.SIGTERM
        # The processes of one run stop at the same step, or some would wait for the others.
        if trainer.strategy.reduce_boolean_decision(self.requested is not None, all=False):
            self.requested = self.requested or signal.SIGTERM
            raise self.stopped()

    def stopped(self) -> StoppedError:
        """What the run ends with."""
        number = signal.Signals(self.requested or signal.SIGTERM)
        return StoppedError(f"stopped by {number.name}", 128 + number)
