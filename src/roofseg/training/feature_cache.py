"""Encoder features that are computed once and kept, for as long as the encoder is frozen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch


class FeatureCache:
    """Lists of tensors by key, kept on their own device until they fill a limit.

    A list that no longer fits is computed anew at every call: the limit decides what is saved, in
    time, and never what comes out. What came first stays; at equal use nothing would be gained by
    making room for another.

    Args:
        limit_gb: GB (10^9 bytes) of tensors to keep at most; 0 keeps none
    """

    def __init__(self, limit_gb: float) -> None:
        self.limit = round(limit_gb * 1e9)
        self.bytes = 0
        """How much is held now."""
        self.full = False
        """Whether anything was turned away since the last ``clear``."""
        self._kept: dict[Hashable, list[torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, compute: Callable[[], list[torch.Tensor]]) -> list[torch.Tensor]:
        """What ``compute`` gives, or gave when it was called for ``key`` before.

        It must give the same at every call and carry no gradient, and nobody may write into it.
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
        """Forget everything: the encoder has changed."""
        self._kept.clear()
        self.bytes, self.full = 0, False


def memory(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes that tensors keep alive: of the whole storage where one is a view of it, once each.

    Tensors on the meta device have a shape and no bytes.
    """
    storages = [tensor.untyped_storage() for tensor in tensors if not tensor.is_meta]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
