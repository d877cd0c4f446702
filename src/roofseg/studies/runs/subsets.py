"""Seeded, nested subsets of the training tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from roofseg.core.errors import UserError


def subset(tiles: Iterable[str], count: int | None, seed: int) -> list[str]:
    """Sample ``count`` tiles (None: all) with a seed; the result is sorted by name.

    It has the tiles with the lowest SHA-256 of seed and name ("bottom-k sampling": Cohen and
    Kaplan, Summarizing Data using Bottom-k Sketches, PODC 2007). Subsets of one seed are nested,
    another seed gives another sample, and the result depends neither on the platform, nor on a
    library, nor on the order of ``tiles``.

    Raises:
        UserError: ``count`` is not between 1 and the number of tiles
    """
    names = list(tiles)
    if count is None:
        return sorted(names)
    if not 1 <= count <= len(names):
        raise UserError(
            f"found a subset of {count} training tiles; expected 1 to {len(names)}, the number of "
            "training tiles"
        )
    return sorted(sorted(names, key=lambda tile: _rank(tile, seed))[:count])


def _rank(tile: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {tile}".encode()).digest()
