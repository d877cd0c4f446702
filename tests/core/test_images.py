from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from roofseg.core.errors import UserError
from roofseg.core.images import (
    UNKNOWN,
    UNKNOWN_IN_FILES,
    read_image,
    read_mask,
    write_jpeg,
    write_png,
)

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
GREY = SIZES.flatmap(lambda size: arrays(np.uint8, size))
RGB = SIZES.flatmap(lambda size: arrays(np.uint8, (*size, 3)))


@given(RGB)
def test_a_png_image_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, image: np.ndarray
) -> None:
    path = tmp_path_factory.getbasetemp() / "image.png"
    write_png(path, image)
    found = read_image(path)
    np.testing.assert_array_equal(found, image)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(Image.open(path), image)


@given(GREY)
def test_a_png_mask_is_read_back_as_zero_one_and_unknown(
    tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray
) -> None:
    path = tmp_path_factory.getbasetemp() / "mask.png"
    write_png(path, mask)
    found = read_mask(path)
    expected = np.where(mask == UNKNOWN_IN_FILES, UNKNOWN, mask > 0)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    with Image.open(path) as written:
        assert written.mode == "L"
        np.testing.assert_array_equal(written, mask)


def test_jpeg_keeps_the_order_of_colours(tmp_path: Path) -> None:
    image = np.full((16, 16, 3), (200, 100, 20), np.uint8)
    write_jpeg(tmp_path / "a" / "b.jpg", image)
    for found in (read_image(tmp_path / "a" / "b.jpg"), Image.open(tmp_path / "a" / "b.jpg")):
        np.testing.assert_allclose(np.asarray(found, int), image, atol=3)


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for write, suffix in ((write_png, "png"), (write_jpeg, "jpg")):
        paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
        for path in paths:
            write(path, image)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    write_jpeg(tmp_path / "small.jpg", image, quality=50)
    assert (tmp_path / "small.jpg").stat().st_size < paths[0].stat().st_size


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("content", [b"", b"not an image", "whole"])
def test_an_image_that_does_not_decode_is_an_error(
    tmp_path: Path, read: Any, content: bytes | str
) -> None:
    path = tmp_path / "a.png"
    if isinstance(content, str):
        write_png(path, np.zeros((8, 8, 3), np.uint8))
        content = path.read_bytes()[:30]
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{len(content)} bytes that do not decode") as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The paths that Python opens during a test."""
    seen: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open":
            seen.append(str(arguments[0]))

    sys.addaudithook(watch)  # stays to the end of the process, silent after the test
    yield seen
    watching = False


def test_an_audit_hook_sees_every_read(tmp_path: Path, opened: list[str]) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.zeros((8, 8), np.uint8))
    opened.clear()
    assert cv2.imread(str(path)) is not None
    assert str(path) not in opened  # why it is not used
    read_image(path)
    read_mask(path)
    assert opened.count(str(path)) == 2
