"""Batches of patches for training: drawn with replacement, augmented, divided among processes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from roofseg.core.guard import worker_guard
from roofseg.core.images import UNKNOWN
from roofseg.patches import Patch
from roofseg.recipe.params import Recipe, dropped_draws
from roofseg.training.augment import Augmenter

Draw = tuple[int, int]
"""Index of a patch, and the seed of its augmentation."""
Sample = tuple[torch.Tensor, torch.Tensor, str]
"""Image (3, P, P) uint8 RGB, mask (1, P, P) uint8 {0, 1, `UNKNOWN`}, name of the tile."""


class Draws(Sampler[Draw]):
    """``count`` draws with replacement per epoch, each a (patch index, augmentation seed) pair.

    The draws depend on the seed and the epoch alone: an epoch can be repeated, and the number of
    workers does not matter. Lightning calls ``set_epoch`` before each epoch.

    Without a ``pool`` every draw has its own augmentation. With a ``pool`` each patch has that many
    fixed views, and a draw takes one of them. The same patches are drawn either way.
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
            seeds = [
                view_seed(self.seed, patch, view)
                for patch, view in zip(indices, views, strict=True)
            ]
        return zip(indices, seeds, strict=True)


class DistributedBatches(Sampler[list[Draw]]):
    """The share of process ``rank`` in every batch of ``size`` draws; all shares are equally long.

    An epoch has the same draws in the same batches for any number of processes. A last batch that
    the processes cannot train on is dropped (see `roofseg.recipe.params.dropped_draws`).
    """

    def __init__(self, draws: Draws, size: int, rank: int = 0, processes: int = 1) -> None:
        self.sampler = draws  # Lightning looks for set_epoch under this name
        self.size, self.rank, self.processes = size, rank, processes
        self.dropped = dropped_draws(len(draws), size, processes)

    def __len__(self) -> int:
        return math.ceil((len(self.sampler) - self.dropped) / self.size)

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = list(self.sampler)
        for start in range(0, len(self) * self.size, self.size):
            yield draws[start : start + self.size][self.rank :: self.processes]


def view_seed(seed: int, patch: int, view: int) -> int:
    """The augmentation seed, in [0, 2^64), of a view of a patch; both numbers start at 0."""
    # A spawn key keeps views apart from draws: SeedSequence([seed, patch, 0]) would equal
    # SeedSequence([seed, patch]), which seeds the draws of the epoch numbered ``patch``.
    sequence = np.random.SeedSequence(seed, spawn_key=(patch, view))
    return int(sequence.generate_state(1, np.uint64)[0])


def _to_sample(image: np.ndarray, mask: np.ndarray, tile: str) -> Sample:
    # Samples stay 8-bit until they are on the model's device: a quarter of the bytes to copy.
    return (
        torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
        torch.from_numpy(np.ascontiguousarray(mask))[None],
        tile,
    )


class TrainPatches(Dataset[Sample]):
    """Augmented patches: the item of a draw is its patch, augmented with its seed.

    If any patch has unknown pixels, so have the borders of all views: see `Augmenter`.
    """

    def __init__(self, patches: Sequence[Patch], preset: str) -> None:
        unknown_border = any((patch.mask == UNKNOWN).any() for patch in patches)
        self.patches, self.augmenter = patches, Augmenter(preset, unknown_border)

    def __getitem__(self, draw: Draw) -> Sample:
        index, seed = draw
        patch = self.patches[index]
        return _to_sample(*self.augmenter(patch.image, patch.mask, seed), patch.tile)


class PatchBatches(L.LightningDataModule):
    """Batches of train and val patches for one recipe.

    ``workers`` processes augment the patches; with 0 workers the training process does. If several
    processes train, each gets its share of a training batch and all of val, so that all compute the
    same scores and make the same decisions.

    With an augmentation pool a training batch is the list of its draws. The view of a draw,
    ``train[draw]``, is always the same, so `Segmenter` makes it once and keeps its features.
    """

    def __init__(
        self, train: Sequence[Patch], val: Sequence[Patch], recipe: Recipe, workers: int = 0
    ) -> None:
        super().__init__()
        self.train, self.val = TrainPatches(train, recipe.augmentation), val
        self.draws = Draws(
            len(train), recipe.draws_per_epoch, recipe.seed, recipe.augmentation_pool
        )
        self.batch_size, self.workers = recipe.batch_size, workers

    def train_dataloader(self) -> DataLoader[Sample] | DistributedBatches:
        rank, processes = 0, 1
        if self.trainer:
            rank, processes = self.trainer.global_rank, self.trainer.world_size
        batches = DistributedBatches(self.draws, self.batch_size, rank, processes)
        if self.draws.pool is not None:
            return batches
        return DataLoader(
            self.train,
            batch_sampler=batches,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=partial(_start_worker, worker_guard()),
            # The loader draws a seed, once with workers and in every epoch without. Drawn from the
            # global generator, it would change dropout's values, so the loader gets its own.
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        samples = [_to_sample(patch.image, patch.mask, patch.tile) for patch in self.val]
        return DataLoader(samples, batch_size=self.batch_size)  # type: ignore[arg-type]


def _start_worker(guard: Callable[[int], None], worker: int) -> None:
    """The loader's ``worker_init_fn``: install the ``guard``, and let a stopped run end quietly."""
    guard(worker)
    sys.excepthook = _report_unless_trainer_left


def _report_unless_trainer_left(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an uncaught error of a worker's thread, unless the trainer has closed the connection.

    When a signal stops a run, the trainer may close it while the thread that hands over tensors
    (`multiprocessing.resource_sharer`) writes to it. The trainer says why the run stopped.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
