"""Runs that are stopped at some draw and begun again: to the byte what they would have been."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from graph import ROOT
from small_run import RECIPE, TRAIN, P, Run, machine, recipe, train_small
from unwritable import full_disk

from roofseg.core.errors import StoppedError, UserError
from roofseg.core.weights import write_weights
from roofseg.models.roof_model import build_model
from roofseg.patches import Patch
from roofseg.training.resume import KeepState, held, state_name

pytestmark = pytest.mark.usefixtures("one_thread")

# 4 epochs of 4 steps; a step draws 2 patches and the last one 1, which is dropped.
EPOCHS, DRAWS = 4, 7
CASES: dict[str, dict[str, Any]] = {
    "plateau": {"scheduler": "plateau", "plateau_patience": 0, "lr": 0.02},
    "cosine": {"scheduler": "cosine"},
    "thaw": {"freeze_epochs": 2, "scheduler": "cosine", "encoder_lr_factor": 0.5},
    "average": {"ema_decay": 0.5, "freeze_epochs": 1},
    "frozen": {"freeze_epochs": "all", "ema_decay": 0.9},
    "pool": {"freeze_epochs": "all", "augmentation_pool": 2},
}


class Signalling(list[Patch]):
    """Train patches that send this process a signal at one of their draws."""

    def __init__(self, draw: int, number: int = signal.SIGTERM) -> None:
        super().__init__(TRAIN)
        self.draw, self.number, self.drawn = draw, number, 0

    def __getitem__(self, index: Any) -> Any:
        self.drawn += 1
        if self.drawn == self.draw:
            os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "prior.safetensors"
    torch.manual_seed(1)
    model = build_model(RECIPE.architecture, RECIPE.encoder, dropout=0.0, patch_size=P)
    write_weights(path, model.encoder.state_dict())
    return path


def same(one: Run, other: Run) -> None:
    assert one.weights() == other.weights()
    assert one.trained.record() == other.trained.record()
    assert one.files() == other.files()


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    case: str, tmp_path: Path, prior: Path
) -> None:
    changes = {"epochs": EPOCHS, "draws_per_epoch": DRAWS, **CASES[case]}
    whole = train_small(tmp_path / "whole", prior, tmp_path / "a", **changes)
    state, broken = tmp_path / "b", tmp_path / "broken"
    # In the first epoch, in the second, and in the third of a run that has gone on once.
    draws = (3, DRAWS + 4, DRAWS + 2) if case != "pool" else (3, 4, 5)
    for draw in draws:
        shutil.rmtree(broken, ignore_errors=True)  # as DVC does before it runs a stage
        with pytest.raises(StoppedError):
            train_small(broken, prior, state, train_patches=Signalling(draw), **changes)
    shutil.rmtree(broken)
    again = train_small(broken, prior, state, **changes)
    if case != "pool":
        assert "small  goes on after epoch 2" in again.printed
    same(again, whole)
    assert len(again.curve("val/iou")) == EPOCHS


def test_a_run_that_early_stopping_ended_is_not_trained_on(tmp_path: Path, prior: Path) -> None:
    # Killed after its end and before its outputs were written.
    changes = {"epochs": 40, "early_stopping_patience": 1, "lr": 0.005}
    whole = train_small(tmp_path / "whole", prior, tmp_path / "state", **changes)
    assert whole.trained.epochs_run < 40
    again = train_small(tmp_path / "again", prior, tmp_path / "state", **changes)
    assert "epoch 1/40" not in again.printed
    same(again, whole)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_says_what_is_kept(tmp_path: Path, prior: Path, number: int, status: int) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(StoppedError) as caught:
        train_small(
            tmp_path / "run", prior, tmp_path / "s", train_patches=Signalling(DRAWS + 3, number)
        )
    assert caught.value.status == status
    message = str(caught.value)
    assert signal.Signals(number).name in message
    assert f"Kept: 1 of 3 epochs, in {tmp_path / 's'}; the same command goes on with" in message
    assert signal.getsignal(number) == handler


def test_a_signal_to_the_loaders_workers_too_is_a_stop(tmp_path: Path, prior: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; import small_run as s\n"
        "from test_resume import Signalling\n"
        "from roofseg.core.errors import StoppedError\n"
        "os.setpgid(0, 0)\n"
        "class Group(Signalling):\n"
        "    def __getitem__(self, index):\n"
        "        self.drawn += 1\n"
        "        if self.drawn == self.draw: os.killpg(0, signal.SIGTERM)\n"
        "        return list.__getitem__(self, index)\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    s.train_small(folder / 'run', Path(sys.argv[2]), folder / 'state',\n"
        "                  train_patches=Group(4), on=s.machine(workers=2))\n"
        "except StoppedError as error: sys.exit(error.status)\n"
    )
    paths = [str(ROOT / "tests"), str(ROOT / "src")]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(prior)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 143, done.stderr


def test_the_end_of_the_parent_stops_a_run(tmp_path: Path, prior: Path) -> None:
    with pytest.raises(StoppedError, match="Kept: 0 of 3 epochs"):
        train_small(tmp_path / "run", prior, tmp_path / "state", parent=os.getppid() + 1)
    train_small(tmp_path / "run", prior, tmp_path / "state", parent=os.getppid(), epochs=1)


def test_a_full_disk_loses_nothing(tmp_path: Path, prior: Path) -> None:
    state = tmp_path / "state"
    whole = train_small(tmp_path / "whole", prior, tmp_path / "other")
    with pytest.raises(StoppedError):
        train_small(tmp_path / "run", prior, state, train_patches=Signalling(DRAWS + 3))
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    says = r"cannot be written: .*Kept: 1 of 3 epochs, in "
    with full_disk(500_000), pytest.raises(UserError, match=says):
        train_small(tmp_path / "run", prior, state)
    assert before == {path: path.read_bytes() for path in before}
    assert not list(state.glob(".last*"))
    shutil.rmtree(tmp_path / "run")
    same(train_small(tmp_path / "run", prior, state), whole)


class Filling(Signalling):
    """Train patches at one of whose draws the disk is full: no file takes another byte."""

    def __getitem__(self, index: Any) -> Any:
        self.drawn += 1
        if self.drawn == self.draw:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return list.__getitem__(self, index)


def test_a_disk_without_any_room_is_one_clear_error(tmp_path: Path, prior: Path) -> None:
    """What follows the first failure (DVCLive's end writes too) does not hide it."""
    full = Filling(3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match=r"cannot be written: .*Kept: 0 of 3 epochs"):
            train_small(tmp_path / "run", prior, tmp_path / "state", train_patches=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_state_that_lacks_its_best_weights_is_named(tmp_path: Path, prior: Path) -> None:
    state = tmp_path / "state"
    train_small(tmp_path / "run", prior, state)
    [best] = state.glob("best-*")
    best.unlink()
    with pytest.raises(UserError, match=rf"not a whole state .*{best.name}.* Remove "):
        train_small(tmp_path / "run", prior, state)


def test_pictures_follow_the_setting_of_the_run_that_ends(tmp_path: Path, prior: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(StoppedError):
        train_small(
            tmp_path / "often",
            prior,
            state,
            on=machine(overlay_every=1),
            train_patches=Signalling(2 * DRAWS + 3),
        )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "overlays").mkdir()
    train_small(tmp_path / "run", prior, state, on=machine(overlay_every=2))
    shown = [path.name for path in (tmp_path / "run" / "overlays").iterdir()]
    assert shown == ["epoch_002.png"]


def test_operations_without_a_deterministic_algorithm_are_remembered(tmp_path: Path) -> None:
    keep, again = KeepState(tmp_path), KeepState(tmp_path)
    keep.nondeterministic.add("put_")
    again.nondeterministic.add("bincount")
    again.load_state_dict(keep.state_dict())
    assert again.nondeterministic == {"bincount", "put_"}


def test_a_broken_state_is_named(tmp_path: Path, prior: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "last.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(
        UserError, match=r"last\.ckpt: not a whole state .* Remove .*state to begin"
    ):
        train_small(tmp_path / "run", prior, state)


@pytest.mark.parametrize("freeze", ["all", 2])
def test_a_frozen_prior_is_not_written_again(tmp_path: Path, prior: Path, freeze: Any) -> None:
    state = tmp_path / "state"
    with pytest.raises(StoppedError):
        train_small(
            tmp_path / "run",
            prior,
            state,
            freeze_epochs=freeze,
            train_patches=Signalling(DRAWS + 3),
        )
    weights = torch.load(state / "last.ckpt", weights_only=True)["state_dict"]
    assert any(name.startswith("model.decoder.") for name in weights)
    assert not any(name.startswith("model.encoder.") for name in weights)
    assert not list(state.glob("best-002*"))
    assert {path.name for path in state.glob("best-*")} == {"best-001.safetensors"}


# Who holds a state


def _hold(folder: Path, held_by_now: Any) -> None:
    with held(folder):
        held_by_now.set()
        signal.pause()


def test_a_state_is_held_by_one_process_and_freed_by_its_death(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "states" / "small@1"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold, args=(folder, ready))
    other.start()
    try:
        assert ready.wait(60)
        with (
            pytest.raises(UserError, match=f"held by process {other.pid} on .* same run"),
            held(folder, patience_s=0.1),
        ):
            pass
        assert f"waiting for process {other.pid}" in capfd.readouterr().out
    finally:
        other.kill()
        other.join()
    with held(folder, patience_s=10):
        assert folder.is_dir()
    assert list(folder.parent.iterdir()) == []


def test_a_state_outlives_an_error_and_goes_with_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "small@1"

    def break_off() -> None:
        with held(folder):
            (folder / "last.ckpt").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert (folder / "last.ckpt").exists()
    with held(folder):
        pass
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept_there = pytest.raises(UserError, match=r"cannot be kept there .*ROOFSEG_STATE_DIR")
    with kept_there, held(tmp_path / "file" / "small@1"):
        pass


def test_unfinished_runs_with_other_inputs_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("small@1", "small-er@1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.ckpt").write_bytes(bytes(3_000_000))
    with held(tmp_path / "small@2"):
        pass
    assert "1 unfinished runs of small with other inputs (3 MB)" in capsys.readouterr().out


def test_runs_that_others_train_now_are_not_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(tmp_path / "small@1"), held(tmp_path / "small@2"):
        pass
    assert capsys.readouterr().out == ""


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "small@1"
    (folder / ".last.ckpt.x").mkdir(parents=True)
    (folder / ".last.ckpt.x" / "last.ckpt").write_bytes(b"half")
    with held(folder):
        assert [path.name for path in folder.iterdir()] == ["holder.json"]


def test_the_name_of_a_state_follows_from_all_that_decides_the_result() -> None:
    name = state_name("small", "0" * 64, recipe(), machine())
    assert name.startswith("small@")
    same = [
        state_name("small", "0" * 64, recipe(), machine(workers=2, overlay_every=0)),
        # What the recipe says is in the hash of the inputs already; here, only what it resolves to.
        state_name("small", "0" * 64, recipe(precision="32-true"), machine(device="cpu")),
    ]
    assert set(same) == {name}
    other = {
        state_name("other", "0" * 64, recipe(), machine()),
        state_name("small", "1" * 64, recipe(), machine()),
        state_name("small", "0" * 64, recipe(precision="bf16-mixed"), machine()),
        state_name("small", "0" * 64, recipe(), machine(devices=2)),
    }
    assert len(other) == 4
    assert name not in other
