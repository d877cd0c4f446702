"""The guard of sealed files: opening one raises SealedTestError, in this process and its workers.

The guard is an audit hook on Python's "open" event. It sees what Python itself opens: ``open``,
``Path``, ``os.open``, PIL, numpy. It does not see a C library that opens a path by itself
(rasterio, cv2.imread), nor a child process. So it catches mistakes, not intent. Test stays out of
training because DVC does not give it to the train stages; `make prove-sealed` proves that training
gives the same bytes without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class SealedTestError(RuntimeError):
    """A stage or command opened a file that is sealed for it: a tile, or a test patch."""


class _Guard:
    """The guard of this process. There is one: an audit hook cannot be removed."""

    def __init__(self) -> None:
        self.name = ""
        self.folders: tuple[str, ...] = ()
        self.installed = False
        self.unsealed = False
        self.violation: SealedTestError | None = None

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        if event != "open" or self.unsealed or not isinstance(args[0], str | bytes | os.PathLike):
            return
        name = os.fsdecode(args[0])
        sealed = [path for path in _spellings(name) if path.startswith(self.folders)]
        # Hidden files are not tiles, and git's tools look for a .gitignore in every folder.
        if any(not Path(path).name.startswith(".") for path in sealed):
            self.violation = SealedTestError(
                f"{self.name} opened {name}, which is sealed for it. Only stages and commands that "
                "fetch, check, cut or map tiles may open tiles; the stage evaluate opens them, and "
                "the test patches, through roofseg.evaluation.sealed_split."
            )
            raise self.violation


_guard = _Guard()


def _spellings(path: str) -> tuple[str, str]:
    """The absolute path and the path without links, each with a separator at its end.

    Both are checked: a link to a sealed file is sealed, and so is a link in a sealed folder to a
    file elsewhere (DVC links its outputs into its cache).
    """
    # Strings, not Path: this runs at every open.
    return os.path.abspath(path) + os.sep, os.path.realpath(path) + os.sep  # noqa: PTH100


def install_guard(folders: Iterable[Path], name: str) -> None:
    """From now on, raise SealedTestError when a file below any of ``folders`` is opened.

    The guard covers the whole process and its forks. A second call replaces the folders of the
    first. ``name`` is the stage or command that the message names.
    """
    spellings = {path for folder in folders for path in _spellings(str(folder))}
    _guard.name, _guard.folders = name, tuple(sorted(spellings))
    if not _guard.installed:
        sys.addaudithook(_guard.hook)
        _guard.installed = True


def worker_guard() -> Callable[[int], None]:
    """A ``worker_init_fn`` that installs this process's guard in a DataLoader worker.

    A forked worker has the hook already; a worker started by spawn or forkserver does not.
    """
    return partial(_guard_worker, [Path(folder) for folder in _guard.folders], _guard.name)


def _guard_worker(folders: list[Path], name: str, worker: int) -> None:
    if folders:
        install_guard(folders, f"{name} (worker {worker})")


def raise_violation() -> None:
    """If this process raised a SealedTestError, raise it again, even if it was caught."""
    if _guard.violation:
        raise _guard.violation


@contextmanager
def unsealed() -> Iterator[None]:
    """Lift the guard inside the block. Only `roofseg.evaluation.sealed_split` may use this."""
    _guard.unsealed = True
    try:
        yield
    finally:
        _guard.unsealed = False
