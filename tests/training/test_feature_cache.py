"""The feature cache, and training runs whose results it must not change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from small_run import (
    RECIPE,
    SMALL_VIT,
    TRAIN,
    VAL,
    P,
    Run,
    as_bytes,
    fit,
    machine,
    recipe,
    train_small,
)

from roofseg.core.weights import write_weights
from roofseg.models.roof_model import build_model
from roofseg.training.data import Draw, Draws, PatchBatches
from roofseg.training.feature_cache import FeatureCache, memory
from roofseg.training.segmenter import NotFiniteError, Segmenter

pytestmark = pytest.mark.usefixtures("one_thread")

NOTHING = 1e-9  # GB: one byte


# The cache


@given(
    limit=st.integers(0, 40),
    calls=st.lists(st.sampled_from([("a", 3), ("b", 5), ("c", 8), ("d", 0), (("a", 1), 1)])),
)
def test_the_limit_changes_what_is_computed_but_not_the_result(
    limit: int, calls: list[tuple[Any, int]]
) -> None:
    cache, computed = FeatureCache(limit * 4 / 1e9), []

    def compute(key: Any, size: int) -> list[torch.Tensor]:
        computed.append(key)
        return [torch.full((size,), float(size)), torch.empty(2, device="meta")]

    kept: dict[Any, int] = {}
    for key, size in calls:
        before = len(computed)
        values, shape = cache.get(key, lambda key=key, size=size: compute(key, size))
        assert torch.equal(values, torch.full((size,), float(size)))
        assert shape.is_meta
        assert len(computed) == before + (key not in kept)
        if key not in kept and sum(kept.values()) + size <= limit:
            kept[key] = size
        assert cache.bytes == 4 * sum(kept.values()) <= cache.limit == 4 * limit
        assert len(cache) == len(kept)
    assert cache.full == any(key not in kept for key, _ in calls)


def test_clear_removes_everything() -> None:
    cache = FeatureCache(1.0)
    first = cache.get("a", lambda: [torch.zeros(2)])
    assert cache.get("a", lambda: [torch.ones(2)]) is first
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)
    assert cache.get("a", lambda: [torch.ones(2)])[0].tolist() == [1, 1]
    full = FeatureCache(0)
    full.get("a", lambda: [torch.zeros(2)])
    assert full.full
    full.clear()
    assert not full.full


def test_memory_counts_whole_storages_once() -> None:
    base = torch.zeros(3, 4)
    assert memory([base[0]]) == memory([base, base.T, base[1:]]) == 48
    assert memory([base, torch.zeros(2, dtype=torch.uint8)]) == 50
    assert memory([torch.empty(5, device="meta")]) == 0


# Whole runs


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A prior, and one that makes every loss NaN."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    model = build_model(RECIPE.architecture, RECIPE.encoder, dropout=0.0, patch_size=P)
    write_weights(folder / "sound.safetensors", model.encoder.state_dict())
    with torch.no_grad():
        next(model.encoder.parameters())[:] = math.nan
    write_weights(folder / "broken.safetensors", model.encoder.state_dict())
    return {name: folder / f"{name}.safetensors" for name in ("sound", "broken")}


Runner = Callable[..., Run]


@pytest.fixture(scope="module")
def do_run(tmp_path_factory: pytest.TempPathFactory, priors: dict[str, Path]) -> Runner:
    def go(prior: str = "sound", gb: float = 1.0, workers: int = 0, **changes: Any) -> Run:
        folder = tmp_path_factory.mktemp("run")
        return train_small(
            folder / "out",
            priors[prior],
            folder / "state",
            on=machine(feature_cache_gb=gb, workers=workers),
            **changes,
        )

    return go


FROZEN = {"freeze_epochs": "all", "augmentation": "medium", "draws_per_epoch": 9}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(FROZEN, marks=pytest.mark.whole),
        pytest.param({**FROZEN, "ema_decay": 0.5}, marks=pytest.mark.whole),
        pytest.param({**FROZEN, "precision": "bf16-mixed"}, marks=pytest.mark.whole),
        # Features from before the thaw would be wrong after it.
        pytest.param({**FROZEN, "freeze_epochs": 1}, marks=pytest.mark.whole),
        pytest.param({**FROZEN, "augmentation_pool": 2}, marks=pytest.mark.whole),
        {**FROZEN, "augmentation_pool": 2, "precision": "bf16-mixed", "ema_decay": 0.5},
    ],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items()),
)
def test_the_cache_changes_no_byte(do_run: Runner, changes: dict[str, Any]) -> None:
    everything, nothing = do_run(**changes), do_run(gb=NOTHING, **changes)
    assert everything.weights() == nothing.weights()
    assert everything.files() == nothing.files()
    full = "(feature_cache_gb is full: "
    assert full not in everything.printed
    assert nothing.printed.count(full) == nothing.printed.count("encoder frozen")


@pytest.mark.whole
def test_the_number_of_workers_changes_no_byte_of_a_run_with_a_pool(do_run: Runner) -> None:
    # A limit that has room for some of the views only.
    pooled = {**FROZEN, "augmentation_pool": 2}
    alone, shared = do_run(**pooled), do_run(gb=2e-5, workers=2, **pooled)
    assert alone.weights() == shared.weights()
    assert alone.files() == shared.files()


@pytest.mark.whole
def test_a_pool_without_augmentation_changes_nothing(do_run: Runner) -> None:
    # Batches of one: a pool computes features of one view at a time, and rounding depends on the
    # batch size.
    plain = {**FROZEN, "augmentation": "none", "batch_size": 1}
    without = do_run(**plain)
    for size in (1, 3):
        assert do_run(augmentation_pool=size, **plain).weights() == without.weights()


@pytest.mark.whole
def test_the_weights_depend_on_the_views_and_their_number(do_run: Runner) -> None:
    runs = [do_run(augmentation_pool=size, epochs=1, **FROZEN) for size in (None, 1, 2)]
    assert len({tuple(run.weights().values()) for run in runs}) == 3


def test_a_loss_that_is_not_finite_names_the_tiles_of_a_pool(do_run: Runner) -> None:
    with pytest.raises(NotFiniteError, match=r"the loss is nan .*, tiles train\d, train\d\. "):
        do_run(prior="broken", augmentation_pool=2, **FROZEN)


# Inside of runs


@dataclass
class Seen(Callback):
    """Records the encoder's calls and the validation scores, epoch by epoch."""

    trained_on: list[bytes] = field(default_factory=list)
    validated_on: list[bytes] = field(default_factory=list)
    scores: list[dict[str, bytes]] = field(default_factory=list)
    decoder: dict[str, bytes] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    dtypes: set[tuple[bool, torch.dtype]] = field(default_factory=set)

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        def asked(_: Any, args: tuple[torch.Tensor, ...], features: list[torch.Tensor]) -> None:
            seen = self.validated_on if self._val else self.trained_on
            seen += [image.contiguous().numpy().tobytes() for image in args[0]]
            self.dtypes.add((self._val, features[-1].dtype))

        self._val = False
        pl_module.model.encoder.register_forward_hook(asked)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._val = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._val = False
        self.held.append(pl_module.features.bytes)
        scores = {name: value.numpy().tobytes() for name, value in trainer.callback_metrics.items()}
        masks = {tile: mask.tobytes() for tile, mask in pl_module.val_masks.items()}
        self.scores.append({**scores, **masks})

    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.decoder = as_bytes(pl_module.model.decoder)


def look(
    gb: float = 1.0, draws: Draws | None = None, pool: int | None = None, **changes: Any
) -> Seen:
    """Train a model and record it; ``draws`` replaces the draws of the recipe."""
    given = recipe(**{**FROZEN, "augmentation_pool": pool, **changes})
    torch.manual_seed(0)
    model = build_model(given.architecture, given.encoder, dropout=given.dropout, patch_size=P)
    model.adapt(given.lora)
    data = PatchBatches(TRAIN, VAL, given)
    data.draws = draws or data.draws
    seen = Seen()
    module = Segmenter(model, given, gb)
    fit(module, data, [seen], precision=given.precision, max_epochs=given.epochs)
    return seen


SAM = {"encoder": "sam_vit_b", "epochs": 2, "draws_per_epoch": 2}
TINY = {**SAM, "encoder": "tu-vit_tiny_patch16_dinov3_qkvb"}  # with class and register tokens


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"architecture": "deeplabv3plus"}, marks=pytest.mark.whole),
        pytest.param({"architecture": "sam_conv", **SAM}, marks=pytest.mark.whole),
        pytest.param({"architecture": "sam_unet", **SAM}, marks=pytest.mark.whole),
        pytest.param({"architecture": "fpn"}, marks=pytest.mark.whole),
        pytest.param({"architecture": "dpt", **TINY}, marks=pytest.mark.whole),
        pytest.param(
            {"architecture": "vit_unet", **SAM, "encoder": "mobile_sam"}, marks=pytest.mark.whole
        ),
    ],
    ids=lambda changes: changes.get("architecture", "unet"),
)
def test_val_is_encoded_once_and_scored_the_same(changes: dict[str, Any]) -> None:
    kept, anew = look(**changes), look(gb=0, **changes)
    assert kept.scores == anew.scores
    assert kept.decoder == anew.decoder
    assert len(kept.scores) == changes.get("epochs", 3)
    assert len(kept.validated_on) == len(VAL)
    assert anew.validated_on == kept.validated_on * len(kept.scores)
    assert anew.held == [0] * len(kept.scores)
    assert len(set(kept.held)) == 1
    assert kept.held[0] > 0


@pytest.mark.whole
@pytest.mark.parametrize(
    "changes",
    [{}, {**SMALL_VIT, "lora_rank": 4}],
    ids=["thawed", "lora"],
)
def test_a_thawed_or_adapted_encoder_runs_in_every_epoch(changes: dict[str, Any]) -> None:
    seen = look(freeze_epochs=2, epochs=5, **changes)
    assert len(seen.validated_on) == len(VAL) * (1 + 3)
    assert [held > 0 for held in seen.held] == [True, True, False, False, False]


@pytest.mark.whole
def test_each_view_of_a_pool_is_encoded_once() -> None:
    kept, anew = look(pool=2, epochs=4), look(pool=2, epochs=4, gb=0)
    drawn = 4 * 8  # 9 draws in twos: a last batch of one is dropped
    assert len(anew.trained_on) == drawn
    assert len(kept.trained_on) == len(set(kept.trained_on)) <= 2 * len(TRAIN) < drawn
    assert set(kept.trained_on) == set(anew.trained_on)
    assert kept.decoder == anew.decoder
    assert kept.scores == anew.scores


def test_val_is_encoded_in_float32_and_a_pool_in_the_precision_of_training() -> None:
    seen = look(pool=1, precision="bf16-mixed", epochs=1)
    assert seen.dtypes == {(True, torch.float32), (False, torch.bfloat16)}


class PooledDraws(Draws):
    """The draws of a pool, loaded and augmented at every draw."""

    def __iter__(self) -> Iterator[Draw]:
        draws = Draws(self.patches, self.count, self.seed, pool=2)
        draws.set_epoch(self.epoch)
        return iter(draws)


@pytest.mark.whole
def test_a_pool_trains_on_the_views_and_masks_of_its_draws() -> None:
    fresh = look(draws=PooledDraws(len(TRAIN), 9, RECIPE.seed), batch_size=1)
    pooled = look(pool=2, batch_size=1)
    assert pooled.decoder == fresh.decoder
    assert pooled.scores == fresh.scores
    assert set(pooled.trained_on) == set(fresh.trained_on)
    assert len(pooled.trained_on) < len(fresh.trained_on) == 3 * 9
