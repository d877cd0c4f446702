"""A cache of the features that a frozen encoder computes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch


class FeatureCache:
    """Keeps lists of tensors by key, on their device, up to a limit of memory.

    A list that no longer fits is computed at every call, so the limit changes the time but never
    the result. Nothing is evicted: all keys are used equally often, so eviction would gain nothing.

    Args:
        limit_gb: at most this many GB (10^9 bytes) of tensors are kept; 0 keeps none
    """

    def __init__(self, limit_gb: float) -> None:
        self.limit = round(limit_gb * 1e9)
        self.bytes = 0
        """Memory that the kept tensors take now."""
        self.full = False
        """Whether a list did not fit since the last ``clear``."""
        self._kept: dict[Hashable, list[torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, compute: Callable[[], list[torch.Tensor]]) -> list[torch.Tensor]:
        """The kept tensors of ``key``, or those that ``compute`` returns.

        ``compute`` must return the same values at every call, without gradients. Callers must not
        write into the tensors.
        """
        if key in self._kept:
            return self._kept[key]
        tensors = compute()
        size = memory(tensors)
        if self.bytes + size <= self.limit:
            self._kept[key] = tensors
            self.bytes += size
        else:
            self.full = True
        return tensors

    def clear(self) -> None:
        """Remove all lists; call this when the encoder changes."""
        self._kept.clear()
        self.bytes, self.full = 0, False


def memory(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes of the storages that tensors keep alive; a storage that several share counts once.

    Tensors on the meta device have no storage and count as 0.
    """
    storages = [tensor.untyped_storage() for tensor in tensors if not tensor.is_meta]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
