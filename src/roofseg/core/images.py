"""Read and write pictures and masks as 8-bit arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from roofseg.core.errors import UserError

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W) grey or mask

UNKNOWN = 255
"""The value in a mask, beside 0 background and 1 building, of pixels that nobody has labelled."""

UNKNOWN_IN_FILES = 127
"""The same in files, which hold 0 for background and 255 for building."""


@contextmanager
def portable_opencv() -> Iterator[None]:
    """Make OpenCV compute the same bytes on every CPU of an architecture while the block runs.

    OpenCV chooses its code by the instruction set of the CPU (SSE, AVX2, AVX-512, Intel's IPP), and
    blurs, warps and resizes round differently in each. Inside the block OpenCV runs its baseline
    code, in one thread: its other threads would go on using IPP, which is switched per thread.
    """
    optimized, ipp, threads = cv2.useOptimized(), cv2.ipp.useIPP(), cv2.getNumThreads()
    cv2.setUseOptimized(False)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setUseOptimized(optimized)
        cv2.ipp.setUseIPP(ipp)
        cv2.setNumThreads(threads)


def _decode(path: Path, flags: int) -> Image:
    """Decode an image file as uint8; UserError if it is not a whole JPEG or PNG."""
    # Not cv2.imread: the guard of sealed files sees only what Python itself opens.
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        pixels = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UserError(
            f"{path}: {data.size} bytes that do not decode as an image; expected a whole JPEG or "
            "PNG. Restore it with `dvc checkout`, or remove it and run `dvc repro`."
        )
    return pixels.astype(np.uint8, copy=False)


def read_image(path: Path) -> Image:
    """Read an image as (H, W, 3) uint8 RGB; UserError if it cannot be decoded."""
    return np.ascontiguousarray(_decode(path, cv2.IMREAD_COLOR)[:, :, ::-1])


def read_mask(path: Path) -> Image:
    """Read a mask as (H, W) uint8: 0 background, 1 building, `UNKNOWN`.

    In the file these are 0, any other value, and `UNKNOWN_IN_FILES`. Raises UserError if the file
    cannot be decoded.
    """
    values = _decode(path, cv2.IMREAD_GRAYSCALE)
    mask = (values > 0).astype(np.uint8)
    mask[values == UNKNOWN_IN_FILES] = UNKNOWN
    return mask


def file_values(mask: Image) -> Image:
    """The values of a mask (0, 1, `UNKNOWN`) in a file: 0, 255, `UNKNOWN_IN_FILES`."""
    return np.where(mask == UNKNOWN, UNKNOWN_IN_FILES, mask * 255).astype(np.uint8)


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
