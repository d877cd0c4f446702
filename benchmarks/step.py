"""A training step of U-Net on ResNet34 on the CPU, in a real run.

It is compared with a plain loop and with a bare one, and with the time that it waits for data.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import lightning as L  # noqa: N812
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import SimpleProfiler

from benchmarks.plain import BATCH, ENCODER
from benchmarks.table import Row, faster, slower
from benchmarks.training import watch
from roofseg.core.images import read_image, read_mask, write_jpeg, write_png
from roofseg.core.weights import write_weights
from roofseg.models.device import resolve_precision
from roofseg.patches import Patch
from roofseg.recipe.parsing import read_params
from stages import ROOT

SIZE, WORKERS = 512, 2
WARM_UP, STEPS = 2, 7  # memory grows for two steps
WHAT = f"training step, U-Net ResNet34, {BATCH} x {SIZE} px, CPU"


def rows(folder: Path) -> list[Row]:
    patches = write_patches(folder / "patches")
    write_weights(folder / "scratch.safetensors", {})
    params = read_params(ROOT / "profiles" / "inria.yaml")
    shrunk = {"epochs": 1, "draws_per_epoch": (WARM_UP + STEPS) * BATCH, "batch_size": BATCH}
    recipe = params.recipe("unet_imagenet").model_copy(
        update={"encoder": ENCODER, "prior": "scratch", "freeze_epochs": 0, **shrunk}
    )

    def run(workers: int, **watching: Any) -> None:
        machine = params.machine().model_copy(
            update={"device": "cpu", "workers": workers, "overlay_every": 0}
        )
        prior, out = folder / "scratch.safetensors", folder / f"{workers} workers"
        watch(recipe, machine, (patches, patches[:1]), prior, out, **watching)

    with Plain(folder / "patches") as plain:
        between = Between(plain, patches)
        run(0, callbacks=[between])
    profiler = SimpleProfiler()
    run(WORKERS, profiler=profiler)

    bf16 = resolve_precision("auto", "cpu") == "bf16-mixed"
    ours, plain_times, bare = (seconds[WARM_UP:] for seconds in between.times)
    return [
        faster(
            WHAT + ("" if bf16 else " without bfloat16"),
            "plain loop: float32, NCHW, patches read and decoded at every draw",
            ours,
            plain_times,
            target=3 if bf16 else None,
        ),
        slower(
            "the same",
            "bare loop: same model, precision and layout, data in memory",
            ours,
            bare,
            percent=3,
        ),
        waiting(profiler.recorded_durations),
    ]


def write_patches(folder: Path) -> list[Patch]:
    """Write smooth colours, which compress like aerial images."""
    rng = np.random.default_rng(0)
    patches = []
    for name in "abcdefgh":
        coarse = rng.integers(0, 255, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
        image, mask = folder / f"{name}.jpg", folder / f"{name}.png"
        smooth = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        write_jpeg(image, smooth.astype(np.uint8, copy=False))
        roofs = np.zeros((SIZE, SIZE), np.uint8)
        roofs[100:300, 50:400] = 255
        write_png(mask, roofs)
        patches.append(Patch(name, read_image(image), read_mask(mask)))
    return patches


class Plain:
    """The plain loop, in a process that waits between its steps."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain", str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def step(self) -> float:
        """Do one step; returns its seconds."""
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


class Between(Callback):
    """After every step of a run, times a plain and a bare step; the run's clock is paused then."""

    def __init__(self, plain: Plain, patches: list[Patch]) -> None:
        self.plain = plain
        self.times: tuple[list[float], list[float], list[float]] = ([], [], [])
        drawn = patches[:BATCH]
        images = torch.from_numpy(np.stack([patch.image for patch in drawn])).permute(0, 3, 1, 2)
        self.images = (images / 255).contiguous(memory_format=torch.channels_last)
        self.truth = torch.from_numpy(np.stack([patch.mask for patch in drawn]))[:, None]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.model = copy.deepcopy(pl_module.model)
        used = trainer.optimizers[0].defaults
        options = {key: used[key] for key in ("lr", "weight_decay", "foreach", "fused")}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **options)
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.times[0].append(time.perf_counter() - self.began)
        self.times[1].append(self.plain.step())
        start = time.perf_counter()
        self.bare(trainer, pl_module)
        self.began = time.perf_counter()
        self.times[2].append(self.began - start)

    def bare(self, trainer: L.Trainer, module: Any) -> None:
        self.optimizer.zero_grad()
        with trainer.precision_plugin.forward_context():
            loss = module.loss(self.model(self.images), self.truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), module.recipe.gradient_clip)
        self.optimizer.step()


def waiting(durations: dict[str, list[float]]) -> Row:
    """The time that the run waited for its workers, by Lightning's own profiler."""
    steps = durations["run_training_batch"][WARM_UP:]  # before the first, the workers start
    waits = durations["[_TrainingEpochLoop].train_dataloader_next"][WARM_UP:][: len(steps)]
    share = 100 * sum(waits) / sum(steps)
    return Row(
        f"time waiting for data, {WORKERS} workers that augment",
        "the step",
        "under 5 %",
        f"{1000 * sum(waits) / len(waits):.3g} ms",
        f"{sum(steps) / len(steps):.3g} s",
        f"{share:.2f} %",
        share < 5,
    )
