"""The cost of a frozen encoder once its features are cached.

There is one training run per attempt, whose augmentation pool is filled beforehand. Between its
steps, bare steps do the same on the same inputs: with the decoder alone (the ideal cost), and with
the encoder run anew (the cost without the cache). The rows show medians over the epochs.
"""

from __future__ import annotations

import copy
import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import default_collate

from benchmarks.table import ROUNDS, Row, faster, slower
from roofseg.models.device import full_float32, resolve_precision
from roofseg.models.roof_model import build_model
from roofseg.patches import Patch
from roofseg.recipe.params import Recipe
from roofseg.training.data import Draw, PatchBatches, view_seed
from roofseg.training.segmenter import Segmenter

# Not the study's 1024 px: one such image takes SAM's encoder 10 to 25 s on two cores. 448 px are
# four of its attention windows.
SIZE = {"sam_vit_b": 448, "tu-tf_efficientnet_lite0": 512}
ATTEMPTS = {
    "sam_conv": ("sam_conv", "sam_vit_b", 2),
    "sam_unet": ("sam_unet", "sam_vit_b", 2),
    "unet, frozen": ("unet", "tu-tf_efficientnet_lite0", 4),
    "deeplabv3plus, frozen": ("deeplabv3plus", "tu-tf_efficientnet_lite0", 4),
}
SEED = 0
PATCHES, VIEWS = 4, 2
STEPS, VAL_BATCHES = 6, 2
ENCODER_ROUNDS = 2  # of the steps with the encoder, which take most of the time


def recipe(architecture: str, encoder: str, batch_size: int) -> Recipe:
    return Recipe(
        architecture=architecture, encoder=encoder, prior="scratch", seed=SEED, epochs=ROUNDS + 1,
        draws_per_epoch=STEPS * batch_size, batch_size=batch_size, lr=1e-4, weight_decay=1e-4,
        augmentation="medium", dropout=0.3, bce_weight=0.5, scheduler="constant",
        plateau_factor=0.5, plateau_patience=3, early_stopping_patience=99, freeze_epochs="all",
        encoder_lr_factor=1.0, gradient_clip=1.0, ema_decay=None, precision="auto",
        augmentation_pool=VIEWS, algorithms="deterministic",
    )  # fmt: skip


def patches(count: int, size: int) -> list[Patch]:
    rng = np.random.default_rng(count)
    image = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    mask = np.zeros((count, size, size), np.uint8)
    mask[:, size // 8 : size // 2, size // 4 : size // 2] = 1
    return [Patch(f"{count}-{number}", image[number], mask[number]) for number in range(count)]


class Alternate(Callback):
    """Times epochs and validation passes, and between their steps those of the bare loops.

    The clock of the run is paused during bare steps. A bare step comes before and after the run's
    own step in turn, so that neither has a warm cache more often.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []  # seconds by what was done
        self.began = 0.0

    def count(self, what: str) -> None:
        """Add the time since the last call to ``what``, or to nothing if that is ""."""
        now = time.perf_counter()
        if what:
            self.epochs[-1][what] = self.epochs[-1].get(what, 0.0) + now - self.began
        self.began = now

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.decoder = copy.deepcopy(pl_module.model.decoder)
        used = trainer.optimizers[0].defaults
        options = {key: used[key] for key in ("lr", "weight_decay", "foreach", "fused")}
        self.optimizer = torch.optim.AdamW(self.decoder.parameters(), **options)
        places = itertools.product(range(PATCHES), range(VIEWS))
        self.views(pl_module, [(patch, view_seed(SEED, patch, view)) for patch, view in places])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.epochs.append({})
        self.count("")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.count("epoch, ours")
        if batch_idx % 2 == 0:
            self.train_bare(trainer, pl_module, batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.count("epoch, ours")
        if batch_idx % 2:
            self.train_bare(trainer, pl_module, batch)

    def train_bare(self, trainer: L.Trainer, module: Any, draws: list[Draw]) -> None:
        def step(encode: Callable[[], list[torch.Tensor]], truth: torch.Tensor) -> None:
            self.optimizer.zero_grad()
            with trainer.precision_plugin.forward_context():
                loss = module.loss(self.decoder(encode()), truth)
            loss.backward()
            self.optimizer.step()

        images, truth, _ = default_collate([module._train[draw] for draw in draws])
        images, truth = images.to(module.device), truth.to(module.device)
        features = [torch.cat(each) for each in zip(*self.views(module, draws), strict=True)][:-1]
        self.count("")
        step(lambda: features, truth)
        self.count("epoch, decoder alone")
        if len(self.epochs) <= 1 + ENCODER_ROUNDS:
            step(lambda: module.encode(images), truth)
            self.count("epoch, encoder anew")
        self.count("")

    def views(self, module: Any, draws: Iterable[Draw]) -> list[list[torch.Tensor]]:
        with module.trainer.precision_plugin.forward_context():
            return [
                module.features.get(("view", *draw), partial(module._view, draw)) for draw in draws
            ]

    def on_validation_start(self, *_: Any) -> None:
        self.count("")

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self.count("val, ours")
        if batch_idx % 2 == 0:
            self.validate_bare(pl_module, batch[0], batch_idx)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self.count("val, ours")
        if batch_idx % 2:
            self.validate_bare(pl_module, batch[0], batch_idx)

    def validate_bare(self, module: Any, images: torch.Tensor, number: int) -> None:
        with full_float32(module.device.type):
            features = module.features.get(("val", number), lambda: module.encode(images))
            self.count("")
            module.model.decode(features)
            self.count("val, decoder alone")
            if len(self.epochs) <= 1 + ENCODER_ROUNDS:
                module.model.decode(module.encode(images))
                self.count("val, encoder anew")
        self.count("")

    def on_validation_end(self, *_: Any) -> None:
        self.count("val, ours")

    def rows(self, inputs: str) -> list[Row]:
        whats = {
            "epoch": (
                f"training epoch with a filled pool, {STEPS} steps of {inputs}",
                "the decoder alone: forward, backward, step",
            ),
            "val": (
                f"validation pass after the first, {VAL_BATCHES} batches of {inputs}",
                "the decoder alone",
            ),
        }
        rows = []
        for key, (what, against) in whats.items():
            ours, alone, anew = (
                [epoch[f"{key}, {how}"] for epoch in self.epochs[1:] if f"{key}, {how}" in epoch]
                for how in ("ours", "decoder alone", "encoder anew")
            )
            rows += [
                slower(what, against, ours, alone, percent=5),
                faster("the same", "with the encoder anew", ours[: len(anew)], anew, target=None),
            ]
        return rows


def measure(name: str) -> list[Row]:
    """Rows for one attempt: its training epochs and its validation passes."""
    architecture, encoder, batch_size = ATTEMPTS[name]
    size = SIZE[encoder]
    chosen = recipe(architecture, encoder, batch_size)
    torch.manual_seed(0)
    model = build_model(architecture, encoder, dropout=chosen.dropout, patch_size=size)
    module = Segmenter(model.to(memory_format=torch.channels_last), chosen, feature_cache_gb=16)
    val = patches(VAL_BATCHES * batch_size, size)
    data = PatchBatches(patches(PATCHES, size), val, chosen)
    alternate = Alternate()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning's advice about workers and frozen encoders, and torch's about determinism.
        warnings.simplefilter("ignore")
        # roofseg.training.engine.train sets this too.
        torch.utils.deterministic.fill_uninitialized_memory = False
        trainer = L.Trainer(
            accelerator="cpu", precision=resolve_precision("auto", "cpu"),  # type: ignore[arg-type]
            max_epochs=chosen.epochs, deterministic="warn", logger=False,
            enable_checkpointing=False, num_sanity_val_steps=0, enable_model_summary=False,
            enable_progress_bar=False, callbacks=[alternate],
        )  # fmt: skip
        trainer.fit(module, data)
    assert not module.features.full
    return alternate.rows(f"{batch_size} x {size} px, {name}")


def rows() -> Iterator[Row]:
    for name in ATTEMPTS:
        yield from measure(name)
