from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from project import PARAMS
from ruamel.yaml import YAML
from small_run import recipe
from torch.utils.data import DataLoader

from roofseg.core.errors import UserError
from roofseg.core.images import UNKNOWN
from roofseg.patches import Patch
from roofseg.recipe.parsing import parse_params
from roofseg.training.augment import Augmenter
from roofseg.training.data import (
    DistributedBatches,
    Draws,
    PatchBatches,
    TrainPatches,
    view_seed,
)

P = 32


def patches(count: int) -> list[Patch]:
    rng = np.random.default_rng(0)
    return [
        Patch(
            f"t{number}",
            rng.integers(0, 256, (P, P, 3), dtype=np.uint8),
            rng.integers(0, 2, (P, P), dtype=np.uint8),
        )
        for number in range(count)
    ]


def batches(workers: int = 0, **changes: Any) -> PatchBatches:
    options = {"augmentation": "heavy", "draws_per_epoch": 7, "batch_size": 3, "seed": 1}
    return PatchBatches(patches(4), patches(3), recipe(**{**options, **changes}), workers)


def epochs(data: PatchBatches, count: int) -> list[list[tuple[bytes, bytes, tuple[str, ...]]]]:
    """All training batches of some epochs, as bytes, with one loader, as in Lightning."""
    loader, seen = data.train_dataloader(), []
    for epoch in range(count):
        data.draws.set_epoch(epoch)
        seen.append(
            [
                (images.numpy().tobytes(), masks.numpy().tobytes(), tuple(tiles))
                for images, masks, tiles in loader
            ]
        )
    return seen


@given(
    size=st.integers(1, 40),
    count=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 99),
)
def test_draws_are_a_function_of_seed_and_epoch(
    size: int, count: int, seed: int, epoch: int
) -> None:
    draws, later = Draws(size, count, seed), Draws(size, count, seed)
    draws.set_epoch(epoch)
    first = list(draws)
    np.random.seed(0)  # the global generators must not matter
    torch.manual_seed(0)
    for other in (epoch + 1, epoch + 2, epoch):
        later.set_epoch(other)
        list(later)
    assert list(later) == list(draws) == first
    assert len(first) == len(draws) == count
    assert all(0 <= index < size and 0 <= view < 2**63 for index, view in first)


def test_draws_differ_by_epoch_and_by_seed() -> None:
    seen = []
    for seed in (0, 1, 42):
        draws = Draws(24, 48, seed)
        for epoch in range(3):
            draws.set_epoch(epoch)
            seen.append(tuple(draws))
    assert len(set(seen)) == 9
    views = [view for each in seen for _, view in each]
    assert len(set(views)) == len(views)  # no view appears in two epochs


def test_draws_are_with_replacement_and_uniform() -> None:
    one_epoch = [index for index, _ in Draws(24, 24, seed=0)]
    assert len(set(one_epoch)) < 24
    many = np.bincount([index for index, _ in Draws(24, 24 * 400, seed=0)], minlength=24)
    assert many.min() > 300
    assert many.max() < 500  # 400 expected, standard deviation 20


@given(
    size=st.integers(1, 40),
    count=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 99),
    pool=st.integers(1, 5),
)
def test_a_pool_draws_the_same_patches_and_few_views(
    size: int, count: int, seed: int, epoch: int, pool: int
) -> None:
    fresh, pooled = Draws(size, count, seed), Draws(size, count, seed, pool)
    for draws in (fresh, pooled):
        draws.set_epoch(epoch)
    assert [index for index, _ in pooled] == [index for index, _ in fresh]
    assert list(pooled) == list(pooled)
    for index, seed_of_view in pooled:
        assert seed_of_view in [view_seed(seed, index, view) for view in range(pool)]


def test_a_pool_draws_its_views_uniformly_at_every_epoch() -> None:
    draws, seen = Draws(2, 400, seed=3, pool=4), []
    for epoch in range(6):
        draws.set_epoch(epoch)
        seen += list(draws)
    assert len(set(seen)) == 8
    counts = np.unique([view for _, view in seen], return_counts=True)[1]
    assert counts.min() > 225
    assert counts.max() < 375  # 300 expected, standard deviation 16


@given(
    st.sets(
        st.tuples(st.integers(0, 2) | st.just(2**32 - 1), st.integers(0, 3), st.integers(0, 3)),
        min_size=2,
        max_size=30,
    )
)
def test_each_view_has_its_own_seed(views: set[tuple[int, int, int]]) -> None:
    seeds = [view_seed(*view) for view in views]
    assert len(set(seeds)) == len(views)
    assert seeds == [view_seed(*view) for view in views]
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_a_training_patch_is_augmented_with_its_seed() -> None:
    data = patches(2)
    image, mask, tile = TrainPatches(data, "medium")[1, 77]
    seen, truth = Augmenter("medium")(data[1].image, data[1].mask, 77)
    np.testing.assert_array_equal(image, seen.transpose(2, 0, 1))
    np.testing.assert_array_equal(mask[0], truth)
    assert tile == "t1"


def test_val_patches_are_not_augmented() -> None:
    val = list(batches(batch_size=1).val_dataloader())
    for patch, (image, mask, tile) in zip(patches(3), val, strict=True):
        np.testing.assert_array_equal(image[0], patch.image.transpose(2, 0, 1))
        np.testing.assert_array_equal(mask[0], patch.mask[None])
        assert list(tile) == [patch.tile]


def test_batches_have_the_shapes_that_the_engine_expects() -> None:
    data = batches()
    images, masks, tiles = next(iter(data.train_dataloader()))
    assert (images.shape, images.dtype) == ((3, 3, P, P), torch.uint8)
    assert (masks.shape, masks.dtype) == ((3, 1, P, P), torch.uint8)
    assert len(tiles) == 3
    assert set(tiles) <= {"t0", "t1", "t2", "t3"}
    val = list(data.val_dataloader())
    assert [len(tiles) for *_, tiles in val] == [3]
    assert val[0][2] == ["t0", "t1", "t2"] or val[0][2] == ("t0", "t1", "t2")
    np.testing.assert_array_equal(val[0][0][1], patches(3)[1].image.transpose(2, 0, 1))


@settings(max_examples=30)
@given(draws=st.integers(2, 20), batch_size=st.integers(1, 6))
def test_only_a_last_batch_of_one_is_dropped(draws: int, batch_size: int) -> None:
    data = batches(draws_per_epoch=draws, batch_size=batch_size, augmentation="none")
    sizes = [len(tiles) for *_, tiles in data.train_dataloader()]
    alone = batch_size > 1 and draws % batch_size == 1
    assert sum(sizes) == draws - alone
    assert max(sizes) <= batch_size
    assert len(sizes) == len(data.train_dataloader())
    assert batch_size == 1 or 1 not in sizes


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_pool_are_its_draws(workers: int) -> None:
    data = batches(workers, augmentation_pool=2)
    loader = data.train_dataloader()
    for epoch in range(2):
        data.draws.set_epoch(epoch)
        draws = list(data.draws)
        assert list(loader) == [draws[:3], draws[3:6]]  # the last of seven is dropped
    image, mask, tile = data.train[draws[0]]
    assert image.shape == (3, P, P)
    assert mask.shape == (1, P, P)
    assert tile == f"t{draws[0][0]}"


@given(
    count=st.integers(2, 40),
    processes=st.integers(1, 4),
    share=st.integers(1, 4),
)
def test_the_shares_of_all_processes_make_up_the_batches_of_one(
    count: int, processes: int, share: int
) -> None:
    draws, size = Draws(5, count, seed=1), processes * share
    alone = list(DistributedBatches(draws, size))
    shares = [list(DistributedBatches(draws, size, rank, processes)) for rank in range(processes)]
    assert {len(DistributedBatches(draws, size, rank, processes)) for rank in range(processes)} == {
        len(each) for each in shares
    }
    for batch, *parts in zip(alone, *shares, strict=False):
        assert len({len(part) for part in parts}) == 1
        assert sorted(draw for part in parts for draw in part) == sorted(batch)
    # At most the last batch is dropped, and no share is a single draw unless all are.
    assert len(shares[0]) in (len(alone), len(alone) - 1, count // size)
    assert share == 1 or min((len(batch) for batch in shares[0]), default=2) > 1


@pytest.mark.whole
@given(
    draws=st.integers(2, 30),
    batch_size=st.integers(1, 12),
    devices=st.integers(1, 6),
    pool=st.none() | st.integers(1, 3),
    architecture=st.sampled_from(["unet", "fpn", "deeplabv3plus", "upernet"]),
    patch_size=st.sampled_from([32, 64]),
    frozen=st.booleans(),
)
@settings(max_examples=6 * settings.default.max_examples)
def test_accepted_parameters_give_every_device_a_batch_that_it_can_train_on(
    draws: int,
    batch_size: int,
    devices: int,
    pool: int | None,
    architecture: str,
    patch_size: int,
    frozen: bool,
) -> None:
    """Parameters are rejected only if a device would get no batch, or a batch it cannot use."""
    frozen = frozen or pool is not None
    values = {
        **YAML(typ="safe").load(PARAMS),
        "patch_size": patch_size,
        "draws_per_epoch": draws,
        "batch_size": batch_size,
        "devices": devices,
        "augmentation_pool": pool,
        "freeze_epochs": "all" if frozen else 0,
        "attempts": {
            "one": {"architecture": architecture, "encoder": "resnet34", "prior": "scratch"}
        },
        "final": {"one": None},
    }
    # One value per channel in a batch of one: the image pooling, or the last layer of an encoder.
    pooling = architecture in ("deeplabv3plus", "upernet")
    needs_two = pooling or (patch_size == 32 and not frozen)
    try:
        params = parse_params(json.dumps(values))
    except UserError as error:
        message = str(error)
        assert "attempt one" in message
        if batch_size % devices:
            assert "devices" in message
        elif needs_two and batch_size == devices:
            assert "BatchNorm" in message
        else:
            assert len(DistributedBatches(Draws(5, draws, 1), batch_size, 0, devices)) == 0
            assert f"draws_per_epoch of attempt one is {draws}" in message
        return
    recipe = params.recipe("one")
    sampler = Draws(5, recipe.draws_per_epoch, 1, recipe.augmentation_pool)
    for rank in range(params.devices):
        shares = list(DistributedBatches(sampler, recipe.batch_size, rank, params.devices))
        assert shares
        assert min(len(share) for share in shares) >= (2 if needs_two else 1)


def test_an_epoch_that_would_train_on_nothing_is_an_error() -> None:
    values = {
        **YAML(typ="safe").load(PARAMS),
        **{"devices": 2, "draws_per_epoch": 3, "batch_size": 4},
    }
    with pytest.raises(UserError, match=r"draws_per_epoch of attempt small is 3, .* 4 or more"):
        parse_params(json.dumps(values))


def test_a_last_val_batch_of_one_is_kept() -> None:
    data = batches(batch_size=2)
    assert [len(tiles) for *_, tiles in data.val_dataloader()] == [2, 1]


def test_the_number_of_workers_changes_no_byte() -> None:
    alone, shared = epochs(batches(), 2), epochs(batches(2), 2)
    assert alone == shared
    # 7 draws in threes: a last batch of one is dropped.
    assert [[len(tiles) for *_, tiles in epoch] for epoch in alone] == [[3, 3], [3, 3]]
    assert alone[0] != alone[1]
    assert len({images for epoch in alone for images, *_ in epoch}) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_draw_from_the_global_generator(workers: int) -> None:
    # Dropout draws from it: if the loader did too, the weights would depend on the workers.
    torch.manual_seed(3)
    before = torch.get_rng_state()
    data = batches(workers, draws_per_epoch=2)
    assert isinstance(data.train_dataloader(), DataLoader)
    epochs(data, 2)
    assert torch.equal(torch.get_rng_state(), before)


class Failing(list[Patch]):
    """Patches whose workers report an error as `multiprocessing.resource_sharer`'s thread does."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__(patches(4))
        self.error = error

    def __getitem__(self, index: Any) -> Any:
        sys.excepthook(self.error, self.error("found"), None)
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("error", "said"),
    [(BrokenPipeError, False), (ConnectionResetError, False), (EOFError, False), (OSError, True)],
)
def test_a_worker_is_silent_when_the_trainer_has_left(
    error: type[Exception], said: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    data = PatchBatches(Failing(error), patches(3), recipe(), workers=1)
    next(iter(data.train_dataloader()))
    assert (f"{error.__name__}: found" in capfd.readouterr().err) is said


def test_borders_are_unknown_where_a_patch_has_unknown_pixels() -> None:
    image, mask = np.zeros((P, P, 3), np.uint8), np.zeros((P, P), np.uint8)
    known, partly = Patch("a", image, mask), Patch("b", image, mask.copy())
    partly.mask[:2] = UNKNOWN
    draws = [(0, seed) for seed in range(20)]
    for patches, expected in (([known], {0}), ([known, partly], {0, UNKNOWN})):
        views = TrainPatches(patches, "medium")
        assert {int(v) for draw in draws for v in views[draw][1].unique()} == expected
