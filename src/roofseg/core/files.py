"""Write files completely or not at all, with the same bytes every time; read and hash them."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from roofseg.core.errors import DISK_FULL, UserError

# Python reads bytes of a file name that are not UTF-8 as surrogates.
SURROGATE = re.compile("[\ud800-\udfff]")
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a path to write a file or a folder at, and rename it over ``path`` at the end.

    If the block raises, the new file is removed and ``path`` stays as it was. Missing parent
    folders are made. A ``durable`` file survives a loss of power: its bytes reach the disk before
    its name does. If the disk is full, the OSError gets ``path`` as its file name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        new = scratch / path.name
        yield new
        new.stat()  # if the block wrote nothing, fail here, before the old file is replaced
        if durable:
            flush(new)
        if new.is_dir() or path.is_dir():
            # Only a file can be renamed over a file: move the old one aside first.
            with suppress(FileNotFoundError):
                path.rename(scratch / "replaced")
        new.replace(path)
        if durable:
            _fsync(path.parent)
    except OSError as error:
        if error.filename is None and error.errno in DISK_FULL:
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or a folder with everything below it, is on the disk under its name."""
    for entry in (*(path.rglob("*") if path.is_dir() else ()), path, path.parent):
        _fsync(entry)


def _fsync(path: Path) -> None:
    """Wait until the bytes of one file, or the names in one folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def remove_scratch(path: Path) -> None:
    """Remove the scratch folders that killed processes left beside ``path`` in `atomic_write`."""
    # tempfile adds exactly eight random characters. A longer ending belongs to another file:
    # `.a.tif.01234567` is a scratch folder of `a.tif`, not of `a`.
    random = "?" * 8
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.{random}/"):
        shutil.rmtree(scratch)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` (UTF-8, newlines unchanged), completely or not at all."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(text.encode())


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as CSV, completely or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path, header: Sequence[str], remedy: str) -> list[dict[str, str]]:
    """Read a table that `write_rows` wrote: the text of each row, by the columns of ``header``.

    Raises UserError, whose message ends with ``remedy``, if the file is missing or another table.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. {remedy}")
    try:
        text = io.StringIO(path.read_text(encoding="utf-8"), newline="")
        found, *rows = csv.reader(text, strict=True)
    except (csv.Error, ValueError):  # not UTF-8, or empty
        found, rows = [], []
    if found != [*header] or any(len(row) != len(found) for row in rows):
        raise UserError(f"{path}: expected a table with the columns {','.join(header)}. {remedy}")
    return [dict(zip(header, row, strict=True)) for row in rows]


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, keys in the given order; ValueError for NaN or infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read the JSON file at ``path``; UserError if it is missing or is not JSON."""
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
    """SHA-256 (64 hex digits) of the names and contents of files.

    A folder in ``paths`` stands for all files below it. Folder names do not count, so the same
    files in another clone give the same hash.
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
    """The path that a user gave, as an argument or in an environment variable: see `expand_home`.

    A command's arguments get it through `roofseg.commands.arguments`.
    """
    return Path(expand_home(text))


def expand_home(text: str) -> str:
    """Replace a leading ``~`` or ``~user`` by the home folder.

    Shells do not always do this (not in ``--out=~/map``). ``~user`` stays as it is if there is no
    such user, as in a shell; `Path.expanduser` would raise.
    """
    return os.path.expanduser(text)  # noqa: PTH111


def check_file_name(name: str) -> None:
    """Raise UserError if a file's path is not UTF-8, or has a line break or control character.

    Such a path cannot stand in a message of one line, in a table, or in the tags of an output.
    """
    shown = UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
    if shown != name:
        has = "is not UTF-8" if SURROGATE.search(name) else "has a line break or control character"
        raise UserError(f"{shown}: its name {has}. Rename it.")
