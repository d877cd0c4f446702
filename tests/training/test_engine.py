"""Training with its callbacks: whole runs of a small U-Net, and runs of a model with few weights.

Tests share the whole runs. Tests that look inside a run (the frozen encoder, learning rates,
gradients) use the model with few weights in the same Segmenter.
"""

from __future__ import annotations

import copy
import errno
import math
import os
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_run import RECIPE, TRAIN, VAL, P, Run, as_bytes, fit, machine, recipe, train_small
from tiers import cases

from roofseg.core.errors import UserError
from roofseg.core.images import read_image
from roofseg.core.weights import write_weights
from roofseg.metrics import count, f1, iou
from roofseg.models.device import resolve_precision
from roofseg.models.roof_model import RoofModel, build_model
from roofseg.patches import Patch
from roofseg.training.data import PatchBatches
from roofseg.training.engine import EarlyStoppingAfterThaw, _explain, _quiet, _strategy
from roofseg.training.resume import KeepState
from roofseg.training.segmenter import NotFiniteError, Segmenter
from roofseg.training.stopping import StopBetweenSteps

METRICS = ["lr", "train/loss", "val/loss", "val/iou", "val/f1"]

pytestmark = pytest.mark.usefixtures("one_thread")


# Whole runs


@pytest.fixture(scope="module")
def start() -> RoofModel:
    """The model that runs start from; their prior holds its encoder."""
    torch.manual_seed(1)
    return build_model(RECIPE.architecture, RECIPE.encoder, dropout=0.0, patch_size=P)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory, start: RoofModel) -> Path:
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    write_weights(path, start.encoder.state_dict())
    return path


Runner = Callable[..., Run]


@pytest.fixture(scope="module")
def do_run(tmp_path_factory: pytest.TempPathFactory, prior: Path) -> Runner:
    def do(prior: Path = prior, workers: int = 0, every: int = 2, **changes: Any) -> Run:
        on = machine(workers=workers, overlay_every=every)
        folder, state = (tmp_path_factory.mktemp(name) for name in ("run", "state"))
        return train_small(folder, prior, state, on=on, **changes)

    return do


@pytest.fixture(scope="module")
def plain(do_run: Runner) -> Run:
    return do_run(freeze_epochs=1)


@pytest.fixture(scope="module")
def stopped(do_run: Runner) -> Run:
    """A run that early stopping ended; its best epoch is not its last."""
    run = do_run(lr=0.005, epochs=40, early_stopping_patience=1)
    assert run.trained.epochs_run < 40
    return run


def scores(model: RoofModel) -> tuple[float, float]:
    """IoU and F1 on val by roofseg.metrics, in float32."""
    images = torch.from_numpy(np.stack([patch.image for patch in VAL])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        probabilities = model(images).sigmoid().numpy()
    counts = count(probabilities, np.stack([patch.mask for patch in VAL])[:, None])[:3]
    return float(iou(*counts).mean()), float(f1(*counts).mean())


def test_training_finishes_and_learns(plain: Run) -> None:
    assert plain.trained.epochs_run == 3
    assert plain.trained.failure is None
    losses = plain.curve("train/loss")["loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    assert plain.trained.best_val_iou > 0.2  # a blind guess: the roof's share, 1/16


@pytest.mark.parametrize("name", cases(["plain", "stopped"], whole=["stopped"]))
def test_the_best_epoch_has_the_best_val_iou(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    curve = run.curve("val/iou")
    assert run.trained.best_epoch == curve["step"][curve["iou"].argmax()]
    assert run.trained.best_val_iou == curve["iou"].max()
    assert run.trained.epochs_run == len(curve)
    if name == "stopped":
        assert run.trained.best_epoch == len(curve) - 1  # patience of one


def test_the_weights_are_from_the_best_epoch(plain: Run) -> None:
    model, row = plain.trained.model, plain.trained.best_epoch - 1
    assert not model.training
    found_iou, found_f1 = scores(model)
    assert found_iou == pytest.approx(plain.trained.best_val_iou, abs=1e-6)
    assert found_f1 == pytest.approx(plain.curve("val/f1")["f1"][row], abs=1e-6)


def test_the_best_weights_outlive_worse_epochs(stopped: Run) -> None:
    best = stopped.trained.best_val_iou
    assert stopped.curve("val/iou")["iou"].iloc[-1] < best
    assert scores(stopped.trained.model)[0] == pytest.approx(best, abs=1e-6)


@pytest.mark.whole
def test_the_same_seed_gives_the_same_bytes(do_run: Runner, plain: Run) -> None:
    torch.manual_seed(99)  # earlier random draws must not matter
    again = do_run(freeze_epochs=1)
    assert again.weights() == plain.weights()
    assert again.trained.record() == plain.trained.record()
    for metric in METRICS:
        assert again.curve(metric).equals(plain.curve(metric))


@pytest.mark.whole
def test_workers_and_pictures_change_no_byte(do_run: Runner, plain: Run) -> None:
    again = do_run(freeze_epochs=1, workers=2, every=0)
    assert again.weights() == plain.weights()
    for metric in METRICS:
        assert again.curve(metric).equals(plain.curve(metric))


@pytest.mark.whole
def test_another_seed_gives_other_weights(do_run: Runner, plain: Run) -> None:
    assert do_run(freeze_epochs=1, epochs=1, seed=8).weights() != plain.weights()


@pytest.mark.parametrize("precision", cases(["auto", "bf16-mixed"], whole=["auto"]))
def test_mixed_precision_trains_and_is_recorded(do_run: Runner, precision: str) -> None:
    run = do_run(precision=precision, epochs=1)
    assert run.trained.record()["precision"] == resolve_precision(precision, "cpu")
    assert math.isfinite(run.curve("train/loss")["loss"][0])
    # Weights stay float32; scores in the precision of training differ in a few pixels.
    assert {each.dtype for each in run.trained.model.parameters()} == {torch.float32}
    assert scores(run.trained.model)[0] == pytest.approx(run.trained.best_val_iou, abs=0.05)


def test_a_frozen_encoder_keeps_the_bytes_of_the_prior(do_run: Runner, start: RoofModel) -> None:
    run = do_run(freeze_epochs="all", ema_decay=0.5, epochs=2)
    assert as_bytes(run.trained.model.encoder) == as_bytes(start.encoder)
    record = run.trained.record()
    assert record["trainable_parameters"] == record["decoder_parameters"]
    assert scores(run.trained.model)[0] == pytest.approx(run.trained.best_val_iou, abs=1e-6)


@pytest.mark.whole
def test_ema_gives_the_averaged_weights(do_run: Runner) -> None:
    def decoder(run: Run) -> torch.Tensor:
        weights = [each.detach().flatten() for each in run.trained.model.decoder_parameters()]
        return torch.cat(weights)

    # With a decay this high the average stays at the weights of the first step.
    plain = {"epochs": 1, "dropout": 0.0, "augmentation": "none"}
    first, moved, averaged = (
        do_run(draws_per_epoch=2 * steps, ema_decay=decay, **plain)
        for steps, decay in ((1, None), (8, None), (8, 0.999999))
    )
    distance = (decoder(moved) - decoder(first)).norm()
    assert (decoder(averaged) - decoder(first)).norm() < 0.01 * distance
    assert scores(averaged.trained.model)[0] == pytest.approx(
        averaged.trained.best_val_iou, abs=1e-6
    )


def test_record_and_times(plain: Run) -> None:
    trained = plain.trained
    encoder = sum(each.numel() for each in trained.model.encoder.parameters())
    decoder = sum(each.numel() for each in trained.model.decoder.parameters())
    assert trained.record() == {
        "best_epoch": trained.best_epoch,
        "best_val_iou": trained.best_val_iou,
        "epochs_run": 3,
        "encoder_parameters": encoder,
        "decoder_parameters": decoder,
        "trainable_parameters": encoder + decoder,
        "adapter_parameters": 0,
        "device": "cpu",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "precision": "32-true",
        "threads": 1,
        "torch": torch.__version__,
        "nondeterministic_operations": [],
        "failure": None,
    }
    times = trained.times()
    assert set(times) == {"minutes", "seconds_per_epoch", "peak_memory_gb"}
    assert times["peak_memory_gb"] > 0.1  # torch alone takes more
    assert times["seconds_per_epoch"] == pytest.approx(trained.seconds / 3, abs=0.01)


def test_a_prior_that_does_not_fit_is_an_error(do_run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_weights(path, {"conv.weight": torch.zeros(3)})
    with pytest.raises(UserError, match="does not fit"):
        do_run(prior=path)


# Output of a run


def test_curves_count_epochs_from_one(plain: Run) -> None:
    for metric in METRICS:
        curve = plain.curve(metric)
        assert list(curve.columns) == ["step", metric.split("/")[-1]]
        assert list(curve["step"]) == [1, 2, 3]
    assert list(plain.curve("lr")["lr"]) == [0.003] * 3


def test_a_run_writes_no_dvc_files(plain: Run) -> None:
    files = [str(path.relative_to(plain.folder)) for path in plain.folder.rglob("*")]
    assert {name.partition("/")[0] for name in files} == {"live", "overlays"}
    assert [name for name in files if name.endswith((".yaml", ".lock"))] == []


def test_overlays_are_drawn_every_few_epochs_and_after_the_last(
    plain: Run, stopped: Run, do_run: Runner
) -> None:
    for run in (plain, stopped):
        shown = sorted(path.name for path in (run.folder / "overlays").iterdir())
        epochs = range(1, run.trained.epochs_run + 1)
        expected = [epoch for epoch in epochs if epoch % 2 == 0 or (run is plain and epoch == 3)]
        assert shown == [f"epoch_{epoch:03d}.png" for epoch in expected]
    height, width, bands = read_image(plain.folder / "overlays" / "epoch_002.png").shape
    assert bands == 3
    assert height > P
    assert width > P
    none = do_run(every=0, epochs=1, draws_per_epoch=2)
    assert list((none.folder / "overlays").iterdir()) == []


def test_a_block_is_printed_per_epoch(plain: Run) -> None:
    blocks = plain.printed.split("small  epoch ")[1:]
    assert [block.partition("/3")[0] for block in blocks] == ["1", "2", "3"]
    number = r"\d+\.\d+"
    for row, block in enumerate(blocks):
        lines = block.splitlines()
        frozen = ", encoder frozen" if row == 0 else ""
        assert lines[0] == f"{row + 1}/3  lr 0.003{frozen}"
        # 7 draws in twos.
        assert re.fullmatch(
            rf"  train  loss {number}  n 6, 3 steps of 2, a last batch of 1 dropped", lines[1]
        )
        found = re.fullmatch(
            rf"  val    loss ({number})  IoU ({number})  F1 ({number})( \(best\))?", lines[2]
        )
        assert found
        for text, metric in zip(found.groups(), ["val/loss", "val/iou", "val/f1"], strict=False):
            value = plain.curve(metric).iloc[row, 1]
            assert float(text) == pytest.approx(value, abs=1e-4)
        ious = plain.curve("val/iou")["iou"]
        assert bool(found[4]) == (ious[row] > ious[:row].max() if row else True)
        tiles = dict(re.findall(rf"(val\d) ({number})", lines[3]))
        assert list(tiles) == ["val0", "val1", "val2"]
        values = [float(value) for value in tiles.values()]
        assert np.mean(values) == pytest.approx(ious[row], abs=1e-3)
        worst = re.fullmatch(rf"  worst  (val\d) ({number})", lines[4])
        assert worst
        assert tiles[worst[1]] == worst[2]
        assert float(worst[2]) == min(values)
        assert re.fullmatch(
            rf"  memory {number} GB  step \d+ ms \(median\)  epoch {number} s", lines[5]
        )


@pytest.mark.whole
def test_a_run_without_a_batch_of_one_drops_nothing(stopped: Run, do_run: Runner) -> None:
    whole = do_run(epochs=1, draws_per_epoch=3, batch_size=3)
    assert "n 3, 1 steps of 3\n" in whole.printed


# Operations without a deterministic algorithm


@pytest.fixture
def put(one_thread: None) -> Iterator[Callable[[bool], torch.Tensor]]:
    """Runs an operation that has no deterministic algorithm, on a CPU too."""

    def do(strict: bool) -> torch.Tensor:
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        return torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))

    yield do
    torch.use_deterministic_algorithms(False)


def test_an_operation_without_a_deterministic_algorithm_is_named_once(
    put: Callable[[bool], torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    found: set[str] = set()
    with _quiet(found):
        put(False)
        put(False)
    assert found == {"put_"}
    assert capsys.readouterr().out == "note: put_ has no deterministic algorithm on this device\n"


def test_an_operation_without_a_deterministic_algorithm_is_an_error_if_strict(
    put: Callable[[bool], torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as caught:
        put(True)
    error = _explain(
        caught.value, StopBetweenSteps(None), KeepState(tmp_path), recipe(algorithms="strict"), P
    )
    assert isinstance(error, UserError)
    assert re.match("algorithms: strict, but put_ does not have .* or fast", str(error))


@pytest.mark.parametrize(
    ("strategy", "devices", "freeze", "architecture", "lightnings"),
    [
        ("auto", 1, 2, "unet", "auto"),
        ("auto", 2, 0, "unet", "ddp"),
        ("auto", 2, 2, "unet", "ddp_find_unused_parameters_true"),
        # Plain DDP waits for ever for the gradient of a frozen parameter.
        ("ddp", 2, "all", "unet", "ddp_find_unused_parameters_true"),
        ("ddp", 2, 0, "unet", "ddp"),
        # The U-Net decoder does not read the last layers of a ViT.
        ("auto", 2, 0, "vit_unet", "ddp_find_unused_parameters_true"),
    ],
)
def test_the_strategy_of_several_processes_follows_from_the_recipe(
    strategy: str, devices: int, freeze: Any, architecture: str, lightnings: str
) -> None:
    on = machine(strategy=strategy, devices=devices)
    given = recipe(freeze_epochs=freeze, architecture=architecture)
    assert _strategy(on, given) == lightnings


@pytest.mark.parametrize("algorithms", ["strict", "fast"])
def test_the_recipe_chooses_the_algorithms(do_run: Runner, algorithms: str) -> None:
    do_run(algorithms=algorithms, epochs=1)
    assert torch.are_deterministic_algorithms_enabled() == (algorithms == "strict")
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_too_little_memory_names_the_settings(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    error = _explain(caught.value, StopBetweenSteps(None), KeepState(tmp_path), recipe(), P)
    assert isinstance(error, UserError)
    assert re.match(
        r"out of memory in epoch 1 \(.*\), with batch_size 2, patch_size 32 .*Lower batch_size",
        str(error),
    )


class Failing(list[Patch]):
    """Train patches that call ``fail``, which raises, from the second epoch on."""

    def __init__(self, fail: Callable[[], object]) -> None:
        super().__init__(TRAIN)
        self.fail, self.drawn = fail, 0

    def __getitem__(self, index: Any) -> Any:
        self.drawn += 1
        if self.drawn > RECIPE.draws_per_epoch:
            self.fail()
        return super().__getitem__(index)


def open_too_many_files() -> None:
    files = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        while True:
            files.append(open(os.devnull))  # noqa: PTH123, SIM115
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in files:
            file.close()


def write_into_a_closed_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        os.write(write, b"x")
    finally:
        os.close(write)


def fork_without_memory() -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        (open_too_many_files, "/dev/null: Too many open files. Raise the limit (`ulimit -n`)"),
        (
            write_into_a_closed_pipe,
            "output: Broken pipe. Let the program that reads the output run on",
        ),
        (fork_without_memory, "memory: Cannot allocate memory. Free memory, or lower `workers`"),
    ],
)
def test_an_error_of_the_system_is_explained(
    do_run: Runner, fail: Callable[[], object], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        do_run(train_patches=Failing(fail))
    message = str(caught.value)
    assert message.startswith(says)
    assert "Kept: 1 of 3 epochs" in message
    assert "Free space" not in message


def test_a_patch_that_was_removed_is_a_bug_and_keeps_its_traceback(do_run: Runner) -> None:
    with pytest.raises(FileNotFoundError, match="no such patch"):
        do_run(train_patches=Failing(Path("no such patch").read_bytes))


def test_one_patch_per_device_trains_where_parameters_allow_it(do_run: Runner) -> None:
    """The decoder's smallest features are 2 x 2 px, and the frozen encoder is in eval mode."""
    one = do_run(freeze_epochs="all", batch_size=1, draws_per_epoch=2, epochs=1)
    assert "n 2, 2 steps of 1\n" in one.printed
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        do_run(freeze_epochs=0, batch_size=1, draws_per_epoch=2, epochs=1)


# Losses that are not finite


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(
    do_run: Runner, start: RoofModel, tmp_path: Path, value: float
) -> None:
    encoder = copy.deepcopy(start.encoder)
    with torch.no_grad():
        next(encoder.parameters())[:] = value
    write_weights(tmp_path / "broken.safetensors", encoder.state_dict())
    with pytest.raises(NotFiniteError) as caught:
        do_run(prior=tmp_path / "broken.safetensors", lr=0.002)
    message = str(caught.value)
    assert re.match(
        r"the loss is nan at epoch 1, step 1, learning rate 0\.002, tiles train\d, train\d\. ",
        message,
    )
    assert "Lower lr" in message
    assert isinstance(caught.value, UserError)


def test_a_run_that_becomes_not_finite_keeps_its_best_weights(
    do_run: Runner, start: RoofModel
) -> None:
    # At the thaw (epoch 2, step 4) the encoder gets huge weights; at step 5 it overflows.
    run = do_run(freeze_epochs=1, encoder_lr_factor=1e30)
    message = str(run.trained.failure)
    assert re.search(r"at epoch 2, step [45], learning rate 0\.003, tiles train\d", message)
    assert isinstance(run.trained.failure, NotFiniteError)
    assert (run.trained.best_epoch, run.trained.epochs_run) == (1, 1)
    assert as_bytes(run.trained.model.encoder) == as_bytes(start.encoder)
    assert scores(run.trained.model)[0] == pytest.approx(run.trained.best_val_iou, abs=1e-6)
    assert list(run.curve("val/iou")["step"]) == [1]


# Inside a run: a model with few weights in the same Segmenter


class Features(torch.nn.Sequential):
    """A 1x1 convolution and BatchNorm, as an encoder: a list of features."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [super().forward(x)]


class Head(torch.nn.Conv2d):
    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return super().forward(features[0])


class RootHead(Head):
    """The loss is finite, but its gradient is not: the slope of a square root at 0."""

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return (super().forward(features) * 0).sqrt()


class BlindHead(Head):
    """The loss is finite in training, but not in validation."""

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return super().forward(features) + (0 if self.training else math.nan)


def pixelwise(head: type[Head] = Head) -> RoofModel:
    torch.manual_seed(0)
    encoder = Features(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    half = (0.5, 0.5, 0.5)
    return RoofModel(encoder, head(4, 1, 1), mean=half, std=half, multiple=1)


@dataclass
class Watch(Callback):
    """Records learning rates, weights and gradients of a run, per epoch or per step."""

    lrs: list[list[float]] = field(default_factory=list)
    encoders: list[dict[str, bytes]] = field(default_factory=list)
    decoders: list[dict[str, bytes]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.lrs.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.norms.append(self._norm(pl_module))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.clipped.append(self._norm(pl_module))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.encoders.append(as_bytes(pl_module.model.encoder))
        self.decoders.append(as_bytes(pl_module.model.decoder))

    @staticmethod
    def _norm(module: Segmenter) -> float:
        squares = [
            each.grad.double().square().sum().item()
            for each in module.parameters()
            if each.grad is not None
        ]
        return math.sqrt(sum(squares))


class Scripted(Segmenter):
    """A Segmenter that logs the val IoUs of a script, one per epoch."""

    script: list[float]

    def validation_step(self, batch: Any, step: int) -> None:
        self.log("val/iou", self.script[self.current_epoch], batch_size=len(batch[2]))


def watch(
    head: type[Head] = Head,
    script: list[float] | None = None,
    callbacks: list[Callback] | None = None,
    checkpoint: Path | None = None,
    **changes: Any,
) -> Watch:
    """Train the small model; ``script`` replaces its val IoU."""
    defaults = {"epochs": len(script or "1234"), "draws_per_epoch": 4, "augmentation": "none"}
    small = recipe(**{**defaults, "seed": 0, **changes})
    module = (Segmenter if script is None else Scripted)(pixelwise(head), small)
    if isinstance(module, Scripted) and script:
        module.script = script
    seen = Watch()
    watching = [seen, *(callbacks or [])]
    data = PatchBatches(TRAIN, VAL, small)
    trainer = fit(module, data, watching, max_epochs=small.epochs, log_every_n_steps=1)
    if checkpoint:
        trainer.save_checkpoint(checkpoint)
    return seen


def test_the_encoder_does_not_change_until_the_thaw() -> None:
    seen = watch(freeze_epochs=2)
    assert seen.encoders[0] == seen.encoders[1] == as_bytes(pixelwise().encoder)
    # After it, weights and BatchNorm statistics change.
    for before, after in ((1, 2), (2, 3)):
        for name, value in seen.encoders[after].items():
            assert value != seen.encoders[before][name], name
    assert len({each["weight"] for each in seen.decoders}) == 4


def test_without_freezing_the_encoder_changes_in_the_first_epoch() -> None:
    seen = watch(freeze_epochs=0, epochs=1)
    start = as_bytes(pixelwise().encoder)
    assert all(value != start[name] for name, value in seen.encoders[0].items())


@pytest.mark.parametrize("freeze", ["all", 1])
def test_checkpoints_hold_no_frozen_encoder(tmp_path: Path, freeze: Any) -> None:
    watch(freeze_epochs=freeze, checkpoint=tmp_path / "last.ckpt")
    names = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert "model.decoder.weight" in names
    assert any(name.startswith("model.encoder.") for name in names) == (freeze == 1)


def test_the_encoder_has_a_learning_rate_of_its_own() -> None:
    seen = watch(freeze_epochs=1, encoder_lr_factor=0.1, scheduler="cosine")
    for decoder, encoder in seen.lrs:
        assert encoder == pytest.approx(0.1 * decoder)
    still = watch(freeze_epochs=1, encoder_lr_factor=1e-30, weight_decay=0.0)
    moved = watch(freeze_epochs=1, weight_decay=0.0)
    start = as_bytes(pixelwise().encoder)
    assert still.encoders[-1]["0.weight"] == start["0.weight"]
    assert moved.encoders[-1]["0.weight"] != start["0.weight"]
    assert still.decoders[-1]["weight"] != still.decoders[0]["weight"]


def lr_curve(seen: Watch) -> list[float]:
    return [lr for lr, _ in seen.lrs]


def test_constant_keeps_the_learning_rate() -> None:
    assert lr_curve(watch(scheduler="constant")) == [0.003] * 4


def test_cosine_lowers_the_learning_rate_to_zero_over_the_epochs() -> None:
    expected = [0.003 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert lr_curve(watch(scheduler="cosine")) == pytest.approx(expected)


def test_plateau_lowers_the_learning_rate_when_val_iou_stalls() -> None:
    # Patience 1: after the second epoch in a row without a better one.
    script = [0.5, 0.4, 0.45, 0.3, 0.6, 0.6, 0.6, 0.1]
    curve = lr_curve(watch(script=script, scheduler="plateau", plateau_factor=0.1))
    assert curve == pytest.approx([3e-3, 3e-3, 3e-3, 3e-4, 3e-4, 3e-4, 3e-4, 3e-5])


def test_gradients_are_clipped_by_their_norm() -> None:
    seen = watch(gradient_clip=0.01, batch_size=2)
    assert len(seen.norms) == len(seen.clipped) == 8
    assert min(seen.norms) > 0.011
    assert seen.clipped == pytest.approx([0.01] * 8, rel=1e-3)
    free = watch(gradient_clip=1e6)
    assert free.clipped == pytest.approx(free.norms)


def test_a_gradient_that_is_not_finite_stops_the_run_too() -> None:
    with pytest.raises(NotFiniteError, match=r"gradient's norm is (nan|inf) at epoch 1, step 1"):
        watch(head=RootHead)


def test_a_val_loss_that_is_not_finite_stops_the_run_too() -> None:
    # A NaN logit would count as background, and an empty mask has a score.
    with pytest.raises(NotFiniteError, match=r"the val loss is nan at epoch 1, .* tiles val\d"):
        watch(head=BlindHead)


@pytest.mark.parametrize(
    ("thaw", "patience", "script", "epochs"),
    [
        # The first epoch is the best: stop after it plus the patience.
        (0, 2, [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4], 3),
        (0, 2, [0.5, 0.4, 0.6, 0.4, 0.4, 0.9, 0.9], 5),
        # With a thaw, the count starts at the first thawed epoch.
        (3, 2, [0.9, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1], 6),
        (3, 2, [0.9, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 8),
        (3, 1, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 5),
    ],
)
def test_early_stopping_waits_for_thaw_and_patience(
    thaw: int, patience: int, script: list[float], epochs: int
) -> None:
    stopping = EarlyStoppingAfterThaw(thaw, patience)
    seen = watch(script=script, callbacks=[stopping], freeze_epochs=thaw, scheduler="constant")
    assert len(seen.lrs) == epochs
    assert epochs == len(script) or epochs >= thaw + 1 + patience
