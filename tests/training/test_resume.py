"""A run that is stopped at some draw and resumed ends with the bytes of an uninterrupted run."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from graph import ROOT
from processes import wait_until
from small_run import RECIPE, TRAIN, P, Run, machine, recipe, train_small
from tiers import cases
from torch.utils.data import get_worker_info
from unwritable import full_disk

from roofseg.core.errors import StoppedError, UserError
from roofseg.core.progress import Bar, bar
from roofseg.core.run_states import mark_finished, remove_state
from roofseg.core.weights import write_weights
from roofseg.models.roof_model import build_model
from roofseg.patches import Patch
from roofseg.training import callbacks
from roofseg.training.data import PatchBatches
from roofseg.training.resume import KeepState, locked_state, state_name

pytestmark = pytest.mark.usefixtures("one_thread")

# 4 epochs of 4 steps; a step draws 2 patches and the last one 1, which is dropped.
EPOCHS, DRAWS = 4, 7
VIT = {"architecture": "vit_conv", "encoder": "tu-vit_tiny_patch16_dinov3_qkvb"}
CASES: dict[str, dict[str, Any]] = {
    "plateau": {"scheduler": "plateau", "plateau_patience": 0, "lr": 0.02},
    "cosine": {"scheduler": "cosine"},
    "thaw": {"freeze_epochs": 2, "scheduler": "cosine", "encoder_lr_factor": 0.5},
    "average": {"ema_decay": 0.5, "freeze_epochs": 1},
    "frozen": {"freeze_epochs": "all", "ema_decay": 0.9},
    "pool": {"freeze_epochs": "all", "augmentation_pool": 2},
    "lora": {**VIT, "lora_rank": 4, "freeze_epochs": 1, "ema_decay": 0.5},
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


@pytest.mark.parametrize(
    "case", cases(CASES, whole=["plateau", "cosine", "average", "frozen", "pool", "lora"])
)
def test_a_stopped_run_resumes_to_the_same_bytes(case: str, tmp_path: Path, prior: Path) -> None:
    changes = {"epochs": EPOCHS, "draws_per_epoch": DRAWS, **CASES[case]}
    if case == "lora":  # its encoder has no prior
        write_weights(prior := tmp_path / "scratch.safetensors", {})
    whole = train_small(tmp_path / "whole", prior, tmp_path / "a", **changes)
    state, broken = tmp_path / "b", tmp_path / "broken"
    # In the first epoch, in the second, and in the third of a run that was resumed before.
    draws = (3, DRAWS + 4, DRAWS + 2) if case != "pool" else (3, 4, 5)
    for draw in draws:
        shutil.rmtree(broken, ignore_errors=True)  # as DVC does before it runs a stage
        with pytest.raises(StoppedError):
            train_small(broken, prior, state, train_patches=Signalling(draw), **changes)
    shutil.rmtree(broken)
    again = train_small(broken, prior, state, **changes)
    if case != "pool":
        assert "small  resumes the run after epoch 2" in again.printed
    same(again, whole)
    assert len(again.curve("val/iou")) == EPOCHS


@pytest.mark.whole
def test_the_bar_counts_the_steps_of_the_whole_run(
    tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a resumed run go on from its state, and a stopped run removes its bar.

    The signal comes with a draw of step 6, which is made before step 5 is counted.
    """
    bars: list[tuple[int, int, Bar]] = []
    removed: list[Bar] = []

    @contextmanager
    def recorded(*arguments: Any, **options: Any) -> Iterator[Bar]:
        with bar(*arguments, **options) as shown:
            bars.append((shown.total, shown.done, shown))
            try:
                yield shown
            finally:
                removed.append(shown)

    monkeypatch.setattr(callbacks, "bar", recorded)
    changes = {"epochs": 2, "draws_per_epoch": 8}
    with pytest.raises(StoppedError):
        train_small(tmp_path / "a", prior, tmp_path / "s", train_patches=Signalling(11), **changes)
    train_small(tmp_path / "b", prior, tmp_path / "s", **changes)
    assert [(total, before, shown.done) for total, before, shown in bars] == [(8, 0, 4), (8, 4, 8)]
    assert removed == [shown for *_, shown in bars]


@pytest.mark.whole
def test_a_run_that_early_stopping_ended_is_not_trained_again(tmp_path: Path, prior: Path) -> None:
    # As if it was killed after its last epoch, before DVC recorded its outputs.
    changes = {"epochs": 40, "early_stopping_patience": 1, "lr": 0.005}
    whole = train_small(tmp_path / "whole", prior, tmp_path / "state", **changes)
    assert whole.trained.epochs_run < 40
    again = train_small(tmp_path / "again", prior, tmp_path / "state", **changes)
    assert "epoch 1/40" not in again.printed
    assert "small  writes the outputs of the run that ended after epoch" in again.printed
    same(again, whole)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_stopped_run_says_which_epochs_are_kept(
    tmp_path: Path, prior: Path, number: int, status: int
) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(StoppedError) as caught:
        train_small(
            tmp_path / "run", prior, tmp_path / "s", train_patches=Signalling(DRAWS + 3, number)
        )
    assert caught.value.status == status
    message = str(caught.value)
    assert signal.Signals(number).name in message
    assert (
        f"Kept: 1 of 3 epochs, in {tmp_path / 's'}; the same command resumes with epoch 2."
        in message
    )
    assert signal.getsignal(number) == handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_first_step_stops_the_run(
    tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    loader = PatchBatches.train_dataloader

    def signal_first(batches: PatchBatches) -> object:
        os.kill(os.getpid(), number)
        return loader(batches)

    monkeypatch.setattr(PatchBatches, "train_dataloader", signal_first)
    before = signal.getsignal(number)
    name = signal.Signals(number).name
    with pytest.raises(StoppedError, match=rf"stopped by {name}\. Kept: 0 of 3 epochs"):
        train_small(tmp_path / "run", prior, tmp_path / "s")
    assert signal.getsignal(number) == before


WORKERS_SIGNALLED = """
import os, signal, sys
from pathlib import Path
import small_run
from test_resume import Signalling
from torch.utils.data import get_worker_info
from roofseg.core.errors import StoppedError

folder, prior, first, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
trainer = os.getpid()
os.setpgid(0, 0)

class Stopping(Signalling):
    def __getitem__(self, index):  # runs in a worker
        self.drawn += 1
        # One worker alone: a second signal would kill the trainer at once, as it should.
        if self.drawn == self.draw and get_worker_info().id == 0:
            if first == "trainer": os.kill(trainer, number)
            if first == "group": os.killpg(0, number)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return list.__getitem__(self, index)

try:
    small_run.train_small(folder / "run", prior, folder / "state", train_patches=Stopping(4),
                          on=small_run.machine(workers=2))
except StoppedError as error:
    print(error, file=sys.stderr)
    sys.exit(error.status)
"""


@pytest.mark.whole
@pytest.mark.parametrize("first", ["worker", "trainer", "group"])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_to_the_loaders_workers_stops_the_run(
    tmp_path: Path, prior: Path, first: str, number: int, status: int
) -> None:
    """A signal to a process group reaches its processes in any order."""
    paths = [str(ROOT / "tests" / "training"), str(ROOT / "tests"), str(ROOT / "src")]
    arguments = [str(tmp_path), str(prior), first, str(int(number))]
    done = subprocess.run(
        [sys.executable, "-c", WORKERS_SIGNALLED, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    name = signal.Signals(number).name
    assert done.stderr.splitlines()[-1].startswith(f"stopped by {name}. Kept: 0 of 3 epochs, in ")
    assert "Traceback" not in done.stderr


class KilledWorker(list[Patch]):
    """Train patches that kill the loader's second worker, as the system may do."""

    def __getitem__(self, index: Any) -> Any:
        if get_worker_info() and get_worker_info().id == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_killed_worker_is_explained(tmp_path: Path, prior: Path) -> None:
    with pytest.raises(UserError, match=r"has ended \(DataLoader worker .* lower `workers`.* Kept"):
        train_small(
            tmp_path / "run",
            prior,
            tmp_path / "s",
            train_patches=KilledWorker(TRAIN),
            on=machine(workers=2),
        )


def test_the_end_of_the_parent_stops_a_run(tmp_path: Path, prior: Path) -> None:
    with pytest.raises(StoppedError, match="Kept: 0 of 3 epochs"):
        train_small(tmp_path / "run", prior, tmp_path / "state", parent=os.getppid() + 1)
    train_small(tmp_path / "run", prior, tmp_path / "state", parent=os.getppid(), epochs=1)


@pytest.mark.whole
def test_a_full_disk_loses_no_finished_epoch(tmp_path: Path, prior: Path) -> None:
    state = tmp_path / "state"
    whole = train_small(tmp_path / "whole", prior, tmp_path / "other")
    with pytest.raises(StoppedError):
        train_small(tmp_path / "run", prior, state, train_patches=Signalling(DRAWS + 3))
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    says = r"best-002\.safetensors: File too large\. Raise the limit.* Kept: 1 of 3 epochs, in "
    with full_disk(500_000), pytest.raises(UserError, match=says):
        train_small(tmp_path / "run", prior, state)
    assert before == {path: path.read_bytes() for path in before}
    assert not list(state.glob(".last*"))
    shutil.rmtree(tmp_path / "run")
    same(train_small(tmp_path / "run", prior, state), whole)


class Filling(Signalling):
    """Train patches that fill the disk at one draw: no file takes another byte."""

    def __getitem__(self, index: Any) -> Any:
        self.drawn += 1
        if self.drawn == self.draw:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return list.__getitem__(self, index)


def test_a_disk_that_is_full_from_the_start_is_one_clear_error(tmp_path: Path, prior: Path) -> None:
    """A later failure (DVCLive writes when it ends, too) does not hide the first one."""
    full = Filling(3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(
            UserError, match=r": File too large\. Raise the limit .* Kept: 0 of 3 epochs"
        ):
            train_small(tmp_path / "run", prior, tmp_path / "state", train_patches=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.whole
def test_a_state_without_its_best_weights_is_an_error(tmp_path: Path, prior: Path) -> None:
    state = tmp_path / "state"
    train_small(tmp_path / "run", prior, state)
    [best] = state.glob("best-*")
    best.unlink()
    with pytest.raises(UserError, match=rf"not the complete state .*{best.name}.* Remove "):
        train_small(tmp_path / "run", prior, state)


@pytest.mark.whole
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
    assert sorted(shown) == ["epoch_002.png", "epoch_003.png"]


def test_operations_without_a_deterministic_algorithm_are_remembered(tmp_path: Path) -> None:
    keep, again = KeepState(tmp_path), KeepState(tmp_path)
    keep.nondeterministic.add("put_")
    again.nondeterministic.add("bincount")
    again.load_state_dict(keep.state_dict())
    assert again.nondeterministic == {"bincount", "put_"}


def test_a_broken_state_is_an_error(tmp_path: Path, prior: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "last.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(
        UserError, match=r"last\.ckpt: not the complete state .* Remove .*state to start"
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


# The lock of a state


def _lock(folder: Path, locked_now: Any) -> None:
    with locked_state(folder):
        locked_now.set()
        signal.pause()


@pytest.mark.whole
def test_one_process_locks_a_state_and_its_death_frees_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "states" / "small@1"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_lock, args=(folder, ready))
    other.start()
    try:
        wait_until(ready.is_set, other.is_alive)
        with (
            pytest.raises(UserError, match=f"locked by process {other.pid} on .* same run"),
            locked_state(folder, patience_s=0.1),
        ):
            pass
        assert f"waiting for process {other.pid}" in capfd.readouterr().out
    finally:
        other.kill()
        other.join()
    with locked_state(folder, patience_s=10):
        assert folder.is_dir()
        remove_state(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_state_outlives_an_error_and_the_end_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "small@1"

    def fail() -> None:
        with locked_state(folder):
            (folder / "last.ckpt").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with locked_state(folder):
        pass
    assert (folder / "last.ckpt").exists()


def test_a_state_that_cannot_be_read_is_not_taken_for_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(IsADirectoryError):  # as after an error of the disk, which may pass
        KeepState(tmp_path).restore()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept_there = pytest.raises(
        UserError, match=r"cannot keep the state of the run: .*ROOFSEG_STATE_DIR"
    )
    with kept_there, locked_state(tmp_path / "file" / "small@1"):
        pass


def test_unfinished_runs_with_other_inputs_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("small@1", "small-er@1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.ckpt").write_bytes(bytes(3_000_000))
    with locked_state(tmp_path / "small@2"):
        pass
    assert "1 unfinished runs of small with other inputs (3 MB)" in capsys.readouterr().out


def test_finished_runs_and_those_at_work_are_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small@0").mkdir()
    mark_finished(tmp_path / "small@0", "")
    with locked_state(tmp_path / "small@1"), locked_state(tmp_path / "small@2"):
        pass
    assert capsys.readouterr().out == ""


def test_half_written_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "small@1"
    (folder / ".last.ckpt.x").mkdir(parents=True)
    (folder / ".last.ckpt.x" / "last.ckpt").write_bytes(b"half")
    with locked_state(folder):
        assert [path.name for path in folder.iterdir()] == ["holder.json"]


def test_the_name_of_a_state_depends_on_everything_that_decides_the_result() -> None:
    name = state_name("small", "0" * 64, recipe(), machine())
    assert name.startswith("small@")
    same = [
        state_name("small", "0" * 64, recipe(), machine(workers=2, overlay_every=0)),
        # The hash of the inputs covers the recipe; the name adds the resolved precision.
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
