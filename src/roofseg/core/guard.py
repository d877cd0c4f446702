"""The tripwire: opening a sealed file raises SealedTestError, in this process and its workers.

It is an audit hook on Python's "open" event, and sees what Python itself opens: ``open``, ``Path``,
``os.open``, PIL, numpy. A C library that opens a path by itself (rasterio, cv2.imread) is not seen,
nor is a child process. So it catches the slip, not the burglar: what holds test back from training
is that DVC does not give it test as an input, and that training gives the same bytes without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class SealedTestError(RuntimeError):
    """A stage opened a file that is sealed to it: a tile of a dataset, or a test patch."""


class _Guard:
    """What is sealed in this process. There is one: an audit hook cannot be removed."""

    def __init__(self) -> None:
        self.stage = ""
        self.folders: tuple[str, ...] = ()
        self.hooked = False
        self.lifted = False
        self.tripped: SealedTestError | None = None

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        if event != "open" or self.lifted or not isinstance(args[0], str | bytes | os.PathLike):
            return
        name = os.fsdecode(args[0])
        sealed = [path for path in _spellings(name) if path.startswith(self.folders)]
        # What begins with a dot is no tile; git's tools look for a .gitignore in every folder.
        if any(not Path(path).name.startswith(".") for path in sealed):
            self.tripped = SealedTestError(
                f"stage {self.stage} opened {name}, which is sealed to it. Tiles are for what "
                "brings, checks or cuts them; they and test patches are for evaluate, through "
                "roofseg.evaluation.sealed_test."
            )
            raise self.tripped


_guard = _Guard()


def _spellings(path: str) -> tuple[str, str]:
    """A path without ``..`` as it is spelt, and where links lead, each with a separator behind.

    A link to a sealed file is sealed, and so is a sealed file that is a link (into DVC's cache).
    """
    # As strings: this runs at every open.
    return os.path.abspath(path) + os.sep, os.path.realpath(path) + os.sep  # noqa: PTH100


def seal(folders: Iterable[Path], stage: str) -> None:
    """From now on, opening a file below any of ``folders`` raises SealedTestError.

    It holds for the whole process and for what it forks; ``stage`` is the name in the message.
    """
    spelt = {path for folder in folders for path in _spellings(str(folder))}
    _guard.stage, _guard.folders = stage, tuple(sorted(spelt))
    if not _guard.hooked:
        sys.addaudithook(_guard.hook)
        _guard.hooked = True


def worker_seal() -> Callable[[int], None]:
    """A ``worker_init_fn`` that seals in a DataLoader's worker what is sealed here.

    A forked worker has the hook already; one started afresh (spawn, forkserver) does not.
    """
    return partial(_seal_worker, [Path(folder) for folder in _guard.folders], _guard.stage)


def _seal_worker(folders: list[Path], stage: str, worker: int) -> None:
    if folders:
        seal(folders, f"{stage} (worker {worker})")


def check_unbroken() -> None:
    """Raise the SealedTestError that something in this process has caught and dropped."""
    if _guard.tripped:
        raise _guard.tripped


@contextmanager
def unsealed() -> Iterator[None]:
    """Open sealed files inside the block: for `roofseg.evaluation.sealed_test` alone."""
    _guard.lifted = True
    try:
        yield
    finally:
        _guard.lifted = False
