"""Stop a run between two steps: on a signal, or when the process that started it has ended."""

from __future__ import annotations

import os
import signal
from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Callback

from roofseg.core.errors import StoppedError
from roofseg.core.signals import STOP_SIGNALS, stop_signals


def is_orphan(parent: int | None) -> bool:
    """Whether ``parent``, the process that started this one, has ended; False if it is None."""
    return parent is not None and os.getppid() != parent


def stopped_by(number: int) -> StoppedError:
    """The error that ends a run after the signal ``number``."""
    return StoppedError(f"stopped by {signal.Signals(number).name}", 128 + number)


def signal_of_worker(error: BaseException | None) -> int | None:
    """The signal that stopped a DataLoader worker, if torch's ``error`` names one; else None.

    A signal to a whole process group may end a worker before this process receives it. torch then
    raises "DataLoader worker (pid 7) is killed by signal: Terminated.", or an error caused by it.
    """
    while error is not None:
        for number in STOP_SIGNALS:
            if f"is killed by signal: {signal.strsignal(number)}" in str(error):
                return number
        error = error.__cause__ or error.__context__
    return None


class StopBetweenSteps(Callback):
    """On SIGTERM, SIGHUP or Ctrl-C, finish the step and raise StoppedError.

    Use it as a context around `Trainer.fit`, and as one of the trainer's callbacks. A second signal
    kills the process at once. If the process ``parent`` ends, the run stops too: otherwise, after
    `dvc` was killed, its stage would run on beside the one that the next `dvc repro` starts.
    """

    def __init__(self, parent: int | None) -> None:
        self.parent = parent
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        # Before fit, since fit starts the loader's workers before it calls the first hook. Without
        # a handler, Lightning ends the process on Ctrl-C, with status 1 and no message.
        for number in stop_signals():
            self._before[number] = signal.signal(number, self._request)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning has wrapped the handler of SIGTERM in one of its own, which would wait for the
        # other processes of the run. Put ours back.
        if signal.SIGTERM in self._before and not self.requested:
            signal.signal(signal.SIGTERM, self._request)

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
        # All processes of a run stop at the same step, or some would wait for the others.
        if trainer.strategy.reduce_boolean_decision(self.requested is not None, all=False):
            raise stopped_by(self.requested or signal.SIGTERM)
