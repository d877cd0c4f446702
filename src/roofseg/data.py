"""Patches in memory, drawn with replacement and augmented, as batches for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from roofseg.augment import Augmenter
from roofseg.guard import worker_seal
from roofseg.patches import Patch

Draw = tuple[int, int]
Sample = tuple[torch.Tensor, torch.Tensor, str]


class Draws(Sampler[Draw]):
    """``count`` draws with replacement per epoch, each a (patch index, augmentation seed) pair.

    They are a function of the seed and the epoch alone, so an epoch can be run again, and the
    number of workers changes nothing. Lightning calls ``set_epoch`` before each epoch.
    """

    def __init__(self, patches: int, count: int, seed: int) -> None:
        self.patches, self.count, self.seed, self.epoch = patches, count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        indices = rng.integers(self.patches, size=self.count)
        seeds = rng.integers(2**63, size=self.count)
        return iter(list(zip(indices.tolist(), seeds.tolist(), strict=True)))


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

    ``workers`` is the number of processes that augment; 0 does it in the training process. A last
    training batch of one is dropped: BatchNorm cannot train on a single 1x1 feature map (the
    image pooling of DeepLabV3+).
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
    ) -> None:
        super().__init__()
        self.train, self.val = TrainPatches(train, preset), PlainPatches(val)
        self.draws = Draws(len(train), draws, seed)
        self.batch_size, self.workers = batch_size, workers
        self.drops_last = batch_size > 1 and draws % batch_size == 1

    def train_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(
            self.train,
            batch_size=self.batch_size,
            sampler=self.draws,
            drop_last=self.drops_last,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=worker_seal(),
            # The loader seeds its workers, once where they persist and every epoch where there are
            # none: from the global generator, dropout would see other numbers.
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.val, batch_size=self.batch_size)
