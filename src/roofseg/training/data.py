"""Patches in memory, drawn with replacement and augmented, as batches for training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from roofseg.core.guard import worker_seal
from roofseg.patches import Patch
from roofseg.training.augment import Augmenter

Draw = tuple[int, int]
Sample = tuple[torch.Tensor, torch.Tensor, str]


class Draws(Sampler[Draw]):
    """``count`` draws with replacement per epoch, each a (patch index, augmentation seed) pair.

    They are a function of the seed and the epoch alone, so an epoch can be run again, and the
    number of workers changes nothing. Lightning calls ``set_epoch`` before each epoch.

    Without a ``pool`` every draw has an augmentation of its own. With one, a patch has that many
    fixed views, and a draw takes one of them; the patches drawn are the same either way.
    """

    def __init__(self, patches: int, count: int, seed: int, pool: int | None = None) -> None:
        self.patches, self.count, self.seed, self.pool = patches, count, seed, pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        indices = rng.integers(self.patches, size=self.count).tolist()
        if self.pool is None:
            seeds = rng.integers(2**63, size=self.count).tolist()
        else:
            views = rng.integers(self.pool, size=self.count).tolist()
            seeds = [view_seed(self.seed, *each) for each in zip(indices, views, strict=True)]
        return iter(list(zip(indices, seeds, strict=True)))


class Shares(Sampler[list[Draw]]):
    """Batches of ``size`` draws; of each, the share of one of ``processes``, all of one length.

    So an epoch has the same draws in the same batches however many processes work on it. A last
    batch that cannot be shared evenly, or of which each would get a single draw, is dropped:
    BatchNorm cannot train on a single 1x1 feature map (the image pooling of DeepLabV3+).
    """

    def __init__(self, draws: Draws, size: int, rank: int = 0, processes: int = 1) -> None:
        self.sampler = draws  # where Lightning looks for set_epoch
        self.size, self.rank, self.processes = size, rank, processes
        last = len(draws) % size
        uneven, single = last % processes, last == processes < size
        self.dropped = last if uneven or single else 0

    def __len__(self) -> int:
        return math.ceil((len(self.sampler) - self.dropped) / self.size)

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = list(self.sampler)
        for start in range(0, len(self) * self.size, self.size):
            yield draws[start : start + self.size][self.rank :: self.processes]


def view_seed(seed: int, patch: int, view: int) -> int:
    """The augmentation seed, [0, 2^64), of a view in a patch's pool (both count from 0)."""
    # Patch and view as a spawn key: [seed, patch, 0] would be the generator of [seed, patch], that
    # of an epoch's draws.
    sequence = np.random.SeedSequence(seed, spawn_key=(patch, view))
    return int(sequence.generate_state(1, np.uint64)[0])


def _to_sample(image: np.ndarray, mask: np.ndarray, tile: str) -> Sample:
    # 8-bit until the model's device: a quarter of the bytes through workers and to a GPU.
    return (
        torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
        torch.from_numpy(np.ascontiguousarray(mask))[None],
        tile,
    )


class TrainPatches(Dataset[Sample]):
    """Augmented views: item (index, seed) is image (3, P, P) uint8, mask (1, P, P) uint8, tile."""

    def __init__(self, patches: Sequence[Patch], preset: str) -> None:
        self.patches, self.augmenter = patches, Augmenter(preset)

    def __getitem__(self, draw: Draw) -> Sample:
        index, seed = draw
        patch = self.patches[index]
        return _to_sample(*self.augmenter(patch.image, patch.mask, seed), patch.tile)


class PoolDraws(Dataset[Draw]):
    """The draws themselves: who keeps a pool's views needs no images, but which ones are drawn."""

    def __getitem__(self, draw: Draw) -> Draw:
        return draw


class PlainPatches(Dataset[Sample]):
    """Patches as they are: image (3, P, P) uint8, mask (1, P, P) uint8 {0, 1}, tile's name."""

    def __init__(self, patches: Sequence[Patch]) -> None:
        self.patches = patches

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Sample:
        patch = self.patches[index]
        return _to_sample(patch.image, patch.mask, patch.tile)


class PatchBatches(L.LightningDataModule):
    """Train and val patches of one recipe as batches.

    ``workers`` is the number of processes that augment; 0 does it in the training process. Where
    several processes train, each gets its share of a training batch and all of val: so they come
    to the same scores, and decide alike.

    With a ``pool`` (see `Draws`) a training batch is the list of its draws: the item of ``train``
    for a draw is its view, always the same one, so whoever trains makes it once and keeps it.
    """

    def __init__(
        self,
        train: Sequence[Patch],
        val: Sequence[Patch],
        *,
        preset: str,
        draws: int,
        batch_size: int,
        seed: int,
        workers: int,
        pool: int | None = None,
    ) -> None:
        super().__init__()
        self.train, self.val = TrainPatches(train, preset), PlainPatches(val)
        self.draws = Draws(len(train), draws, seed, pool)
        self.batch_size, self.workers = batch_size, workers

    def train_dataloader(self) -> DataLoader[Any]:
        rank, processes = 0, 1
        if self.trainer:
            rank, processes = self.trainer.global_rank, self.trainer.world_size
        batches = Shares(self.draws, self.batch_size, rank, processes)
        if self.draws.pool is not None:
            return DataLoader(
                PoolDraws(), batch_sampler=batches, collate_fn=list, generator=torch.Generator()
            )
        return DataLoader(
            self.train,
            batch_sampler=batches,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=worker_seal(),
            # The loader seeds its workers, once where they persist and every epoch where there are
            # none: from the global generator, dropout would see other numbers.
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.val, batch_size=self.batch_size)
