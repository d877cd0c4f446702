"""Trials of Optuna in the training loop itself: what is reported, and when a run ends early."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("optuna")  # the extra `tune`

import optuna
from project import PARAMS
from small_run import MACHINE, TRAIN, VAL, recipe
from tiny_dataset import make, write_dataset

from roofseg.core.errors import UserError
from roofseg.core.weights import write_weights
from roofseg.recipe.digest import digest
from roofseg.recipe.params import Params, parse_params
from roofseg.training.engine import Trained, train
from roofseg.tuning.grid import Run, parse_tuning, search_name, spaces, warmup
from roofseg.tuning.pruning import Prune
from roofseg.tuning.table import BROKE_OFF, DONE, tuning_table, winners
from stages.tuning_runs import RECORDS, trials
from stages.tuning_trials import DATABASE, trial, try_out

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


def test_a_pruned_run_that_was_stopped_before_its_record_stays_pruned(
    tmp_path: Path, prior: Path
) -> None:
    first, again = Reports(end_at=2), Reports()
    run(tmp_path, prior, first)
    trained, prune = run(tmp_path, prior, again)
    assert prune.pruned
    assert trained.epochs_run == 2
    assert again.told == first.told == list(enumerate(prune.curve, 1))


# With records, in the training of a study


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of a project, the current folder, that is ready to train."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROOFSEG_STATE_DIR", raising=False)
    split = {"a": "train", "b": "train", "c": "val", "t": "test"}
    make(write_dataset(Path("data/tiny"), split), Path("patches"))
    write_weights(Path("weights/scratch.safetensors"), {})
    return parse_params(PARAMS)


def grid(params: Params, **keys: list[object]) -> list[Run]:
    """All runs of a grid for the attempt `small`."""
    tuning = parse_tuning(f"{{seed: 1, runs: 1, attempts: {{small: {keys}}}}}".replace("'", ""))
    return spaces(tuning, params, identity=lambda each: digest(each, params, {}, {}))["small"]


def test_a_record_that_cannot_be_written_costs_no_training(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = grid(params, epochs=[3])
    RECORDS.parent.mkdir(parents=True)
    RECORDS.write_text("in the way")
    with pytest.raises(UserError, match="the run cannot be written"):
        trial(one, "search", 0, Reports(end_at=2), params)
    RECORDS.unlink()
    capsys.readouterr()
    reports = Reports()
    record = trial(one, "search", 0, reports, params)
    assert "epoch 2/3" not in capsys.readouterr().out
    assert record["pruned"]
    assert record["curve"] == [val_iou for _, val_iou in reports.told]
    assert [epoch for epoch, _ in reports.told] == [1, 2]


def test_a_record_serves_every_search_that_comes_upon_it(params: Params) -> None:
    """Nothing is trained again, it is reported as if it were, and each search has its own table."""
    small, large = grid(params, lr=[0.001, 0.003]), grid(params, lr=[0.001, 0.003, 0.01])
    one = small[0]
    first, again = Reports(), Reports()
    trial(one, search_name(small), 0, first, params)
    assert trials({"small": large}) == []
    shutil.rmtree("patches")
    trial(one, search_name(large), 2, again, params)
    assert again.told == first.told != []
    for space, number in ((small, 1), (large, 3)):
        (found,) = trials({"small": space})
        assert (found.run, found.engine, found.number, found.state) == (one, "optuna", number, DONE)
    (found,) = trials({"small": large})
    assert list(found.val.tile) == ["c"]


def test_trials_that_break_off_are_used_but_never_win(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first has a score before its thaw, where the encoder is thrown far away; one has none."""
    space = grid(params, freeze_epochs=[1, 0], encoder_lr_factor=[1.0, 1e30])
    tuning = parse_tuning("{seed: 1, runs: 4, attempts: {small: {lr: [0.1]}}}")
    try_out("small", space, tuning, params)
    said = capsys.readouterr().out
    assert re.search(
        r"/4\] small freeze_epochs 1, encoder_lr_factor 1e\+30: val IoU 0\.\d+ \(broke off: the ",
        said,
    )
    assert re.search(
        r"/4\] small freeze_epochs 0, encoder_lr_factor 1e\+30: no score \(broke off: the ", said
    )
    table = tuning_table(trials({"small": space}))
    assert list(table.number) == [1, 2, 3, 4]
    assert dict(zip(table.name, table.state, strict=True)) == {
        run.name: BROKE_OFF if run.values["encoder_lr_factor"] > 1 else DONE for run in space
    }
    assert table.val_iou.isna().sum() == 1
    assert winners(table).state.item() == DONE
    study = optuna.load_study(study_name=search_name(space), storage=f"sqlite:///{DATABASE}")
    ended = {each.user_attrs["name"]: each.state.name for each in study.trials if each.user_attrs}
    assert ended == {
        run.name: "PRUNED" if run.values["encoder_lr_factor"] > 1 else "COMPLETE" for run in space
    }


def test_no_run_is_compared_before_the_last_thaw_of_its_grid(params: Params) -> None:
    def of(**keys: list[object]) -> int:
        return warmup(grid(params, **keys), params)

    assert of(lr=[0.1, 0.2]) == 1
    assert of(epochs=[9], freeze_epochs=[0, 5, "all", 3]) == 6
    assert of(freeze_epochs=["all"]) == 1
