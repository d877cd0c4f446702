"""Commands that read results: they may not open the project's tiles or test patches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roofseg.core import guard


@contextmanager
def sealed(command: str) -> Iterator[None]:
    """Seal the test patches and the datasets' tiles in the current folder.

    From here on, opening one raises SealedTestError in this process; the block fails too where that
    error was caught. ``command`` is its name in the message.
    """
    tiles = [tiles for name in ("imgs", "msks") for tiles in Path().glob(f"data/*/{name}")]
    guard.seal([Path("patches/test"), *tiles], stage=command)
    yield
    guard.check_unbroken()
