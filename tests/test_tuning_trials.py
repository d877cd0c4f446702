"""Trials of Optuna in the training loop itself: what is reported, and when a run ends early."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("optuna")  # the extra `tune`

from small_run import MACHINE, TRAIN, VAL, recipe

from roofseg.engine import Trained, train
from roofseg.weights import write_weights
from stages.tuning_trials import Prune

pytestmark = pytest.mark.usefixtures("one_thread")


class CutOffError(Exception):
    pass


class Reports:
    """Notes what it is told, and says when to end."""

    def __init__(self, end_at: int = 99, raise_at: int = 99) -> None:
        self.end_at, self.raise_at = end_at, raise_at
        self.told: list[tuple[int, float]] = []

    def __call__(self, epoch: int, val_iou: float) -> bool:
        self.told.append((epoch, val_iou))
        if epoch == self.raise_at:
            raise CutOffError
        return epoch >= self.end_at


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "scratch.safetensors"
    write_weights(path, {})
    return path


def run(folder: Path, prior: Path, reports: Reports) -> tuple[Trained, Prune]:
    prune = Prune(reports)
    trained = train(
        recipe(epochs=4),
        attempt="small",
        train_patches=TRAIN,
        val_patches=VAL,
        prior=prior,
        machine=MACHINE,
        live=folder / "live",
        overlays=folder / "overlays",
        state=folder / "state",
        callbacks=[prune],
    )
    assert trained
    return trained, prune


def test_a_pruned_run_ends_after_that_epoch_with_its_best_weights(
    tmp_path: Path, prior: Path
) -> None:
    reports = Reports(end_at=2)
    trained, prune = run(tmp_path, prior, reports)
    assert prune.pruned
    assert trained.epochs_run == 2
    assert [epoch for epoch, _ in reports.told] == [1, 2]
    assert trained.best_val_iou == max(iou for _, iou in reports.told)


def test_nobody_is_pruned_in_the_last_epoch(tmp_path: Path, prior: Path) -> None:
    trained, prune = run(tmp_path, prior, Reports(end_at=4))
    assert not prune.pruned
    assert trained.epochs_run == 4


def test_a_run_that_goes_on_reports_its_earlier_epochs(tmp_path: Path, prior: Path) -> None:
    whole, first, second = Reports(), Reports(raise_at=3), Reports()
    run(tmp_path / "whole", prior, whole)
    with pytest.raises(CutOffError):
        run(tmp_path / "parts", prior, first)
    run(tmp_path / "parts", prior, second)
    assert second.told == whole.told
    assert [epoch for epoch, _ in second.told] == [1, 2, 3, 4]
