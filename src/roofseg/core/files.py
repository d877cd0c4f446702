"""Reading and writing files: whole or not at all, and the same bytes every time.

Images and masks of patches are read through Python's own ``open`` (not by a C library from a
path), so that an audit hook on "open" sees every read.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from roofseg.core.errors import UserError


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a path to write a file or a folder at, and rename it over ``path`` at the end.

    If the block raises, what it wrote is removed and ``path`` stays as it was. Missing parent
    folders are made. A ``durable`` file survives a loss of power too: it reaches the disk before
    its name does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        made = scratch / path.name
        yield made
        made.stat()  # a block that wrote nothing fails here, before anything is lost
        if durable:
            _flush(made)
        if made.is_dir() or path.is_dir():
            # Only a file can be renamed over a file: what is there moves aside first.
            with suppress(FileNotFoundError):
                path.rename(scratch / "replaced")
        made.replace(path)
        if durable:
            _flush(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # A network's file system may know no such thing for a folder.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def remove_scratch(path: Path) -> None:
    """Remove what `atomic_write` left beside ``path`` in a process that was killed inside it."""
    random = "?" * 8  # as many as tempfile adds; a longer rest is of another name's, `name.tif`
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.{random}/"):
        shutil.rmtree(scratch)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8, newlines as given) at ``path``, whole or not at all."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with its keys in the given order; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read the JSON file at ``path``; a missing or broken one is a UserError."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). Remove it and run `dvc repro`.") from None


def sha256_file(path: Path) -> str:
    """SHA-256 of the file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(paths: Iterable[Path]) -> str:
    """SHA-256 (64 hex digits) over the names and bytes of files, and of all files below folders.

    The names of folders do not count, so the same files in another clone give the same hash.
    """
    files = [
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    ]
    contents = sorted(f"{file.name} {sha256_file(file)}" for file in files)
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def user_path(text: str) -> Path:
    """A path as a user typed it: a ``~`` for a home folder is resolved, as shells do not always.

    The home of an unknown user stays as it is and names no file, where `Path.expanduser` raises.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111
