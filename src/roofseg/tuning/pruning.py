"""Ending a run early, whose val IoU is not worth going on for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.callbacks import Callback

from roofseg.training.callbacks import EpochReport


class Prune(Callback):
    """Reports val IoU after each epoch, and ends a run that is not worth going on with.

    A run that goes on reports its earlier epochs again: to Optuna it is another trial.

    Attributes:
        pruned: whether it ended the run.
        curve: the val IoU of each epoch that was reported.

    Args:
        report: takes an epoch (from 1) and its val IoU, and says whether the run should end there.
    """

    def __init__(self, report: Callable[[int, float], bool]) -> None:
        self.report, self.pruned = report, False
        self.curve: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pruned = state_dict["pruned"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        # Not waiting for the next epoch: a run that was over when it was stopped has none. What was
        # answered then has been acted upon.
        self._report(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        worse = self._report(trainer)
        # A run in its last epoch is whole, whatever is said of it.
        self.pruned = worse and len(self.curve) < pl_module.recipe.epochs
        trainer.should_stop = trainer.should_stop or self.pruned

    def _report(self, trainer: Any) -> bool:
        """Report the epochs that were not yet; says what was answered to the last."""
        (epochs,) = (each for each in trainer.callbacks if isinstance(each, EpochReport))
        answer = False
        for row in epochs.rows[len(self.curve) :]:
            self.curve.append(row["val/iou"])
            answer = self.report(len(self.curve), row["val/iou"])
        return answer
