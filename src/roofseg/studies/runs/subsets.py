"""Fewer training tiles: seeded subsets, of which a smaller one lies within a larger one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from roofseg.core.errors import UserError


def subset(tiles: Iterable[str], count: int, seed: int) -> list[str]:
    """The ``count`` tiles that come first in the order of a seed, sorted by name.

    The order is that of the SHA-256 of seed and name ("bottom-k sampling": Cohen and Kaplan,
    Summarizing Data using Bottom-k Sketches, PODC 2007). So subsets of one seed are nested, another
    seed gives another sample, neither platform nor library decides, and the order in which tiles
    are given does not matter.

    Raises:
        UserError: ``count`` is not between 1 and the number of tiles
    """
    names = list(tiles)
    if not 1 <= count <= len(names):
        raise UserError(
            f"found a subset of {count} training tiles; expected 1 to {len(names)}, as many as "
            "there are"
        )
    return sorted(sorted(names, key=lambda tile: _place(tile, seed))[:count])


def _place(tile: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {tile}".encode()).digest()
