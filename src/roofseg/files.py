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

import cv2
import numpy as np
import numpy.typing as npt

from roofseg.errors import UserError

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W) grey or mask


@contextmanager
def replaced(path: Path, *, durable: bool = False) -> Iterator[Path]:
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
    """Remove what `replaced` left beside ``path`` in a process that was killed inside it."""
    random = "?" * 8  # as many as tempfile adds; a longer rest is of another name's, `name.tif`
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.{random}/"):
        shutil.rmtree(scratch)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8, newlines as given) at ``path``, whole or not at all."""
    with replaced(path) as scratch:
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


def _decode(path: Path, flags: int) -> Image:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        pixels = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UserError(
            f"{path}: {data.size} bytes that do not decode as an image; expected a whole JPEG or "
            "PNG. Run `dvc repro --force make_patches` (or `dvc checkout`) to make it anew."
        )
    return pixels.astype(np.uint8, copy=False)


def read_image(path: Path) -> Image:
    """Read an image as (H, W, 3) uint8 RGB."""
    return np.ascontiguousarray(_decode(path, cv2.IMREAD_COLOR)[:, :, ::-1])


def read_mask(path: Path) -> Image:
    """Read a mask as (H, W) uint8, 0 background and 1 building (any value but 0 in the file)."""
    return (_decode(path, cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)


def _write_encoded(path: Path, array: Image, suffix: str, options: list[int]) -> None:
    bgr = array[:, :, ::-1] if array.ndim == 3 else array
    done, data = cv2.imencode(suffix, np.ascontiguousarray(bgr), options)
    if not done:
        raise ValueError(f"{path}: cannot encode an array of shape {array.shape} as {suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def write_png(path: Path, array: Image) -> None:
    """Write (H, W) grey or (H, W, 3) RGB uint8 as PNG."""
    _write_encoded(path, array, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 6])


def write_jpeg(path: Path, rgb: Image, quality: int = 90) -> None:
    """Write (H, W, 3) uint8 RGB as JPEG."""
    _write_encoded(path, rgb, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
