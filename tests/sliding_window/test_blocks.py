from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from identity import Identity, P, picture, rate
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg.inference.predictor import Images
from roofseg.mapping.cog import TILE
from roofseg.sliding_window import blocks
from roofseg.sliding_window.blocks import count_windows, predict_blocks
from roofseg.sliding_window.imagery import open_imagery

GEO = {"crs": CRS, "transform": TRANSFORM}


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 5), st.floats(0, 0.5))
def test_an_identity_predictor_gives_back_the_image_bit_for_bit(
    height: int, width: int, batch_size: int, overlap: float
) -> None:
    pixels = picture(height, width)
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=height, width=width, count=3, dtype="uint8", **GEO
        ) as target:
            target.write(pixels.transpose(2, 0, 1))
        found = np.full((height, width), -1, np.float32)
        told: list[int] = []
        with open_imagery(memory.name) as imagery:
            with closing(
                predict_blocks(
                    imagery,
                    P,
                    partial(map, rate),
                    overlap=overlap,
                    batch_size=batch_size,
                    progress=told.append,
                )
            ) as parts:
                for block in parts:
                    assert block.valid.shape == block.probability.shape
                    assert block.valid.all()
                    rows, cols = block.probability.shape
                    part = found[block.row : block.row + rows, block.col : block.col + cols]
                    assert (part == -1).all()
                    part[:] = block.probability
            assert sum(told) == count_windows(imagery, P, overlap)
    np.testing.assert_array_equal(found, rate(pixels))


def test_strips_give_the_same_result_as_the_whole_raster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predictor's results depend on the place of a pixel in its window."""
    write_raster(tmp_path / "t.tif", picture(70, 1400), **GEO)
    rng = np.random.default_rng(1)
    rim = rng.random((P, P), np.float32)
    results = []
    for columns in (blocks.STRIP_COLUMNS, 512):
        monkeypatch.setattr(blocks, "STRIP_COLUMNS", columns)
        found = np.empty((70, 1400), np.float32)
        lefts = set()
        with open_imagery(str(tmp_path / "t.tif")) as imagery:
            for block in predict_blocks(
                imagery, P, lambda batches: (rate(batch) * rim for batch in batches)
            ):
                rows, cols = block.probability.shape
                found[block.row : block.row + rows, block.col : block.col + cols] = (
                    block.probability
                )
                lefts.add(block.col)
        assert len(lefts) == (1 if columns > 512 else 3)
        results.append(found)
    np.testing.assert_array_equal(*results)


def test_windows_without_data_are_not_predicted(tmp_path: Path) -> None:
    pixels = picture(200, 200) | 1
    pixels[:150, 60:] = 0
    write_raster(tmp_path / "t.tif", pixels, nodata=0, **GEO)
    predictor = Identity()
    found, told = np.empty((200, 200), np.float32), []
    with open_imagery(str(tmp_path / "t.tif")) as imagery:
        windows = count_windows(imagery, P)
        for block in predict_blocks(imagery, P, partial(map, predictor), progress=told.append):
            rows = slice(block.row, block.row + len(block.valid))
            found[rows] = np.where(block.valid, block.probability, -1)
    valid = (pixels > 0).any(2)
    np.testing.assert_array_equal(found, np.where(valid, rate(pixels), -1))
    assert sum(told) == windows
    assert sum(map(len, predictor.seen)) < 0.6 * windows


def test_batches_do_not_depend_on_the_engine(tmp_path: Path) -> None:
    write_raster(tmp_path / "t.tif", picture(90, 130), **GEO)
    seen: list[list[bytes]] = []
    for _ in range(2):
        with open_imagery(str(tmp_path / "t.tif")) as imagery:
            batches: list[bytes] = []

            def run(images: Iterator[Images], into: list[bytes] = batches) -> Any:
                for batch in list(images):  # all of them before the first result
                    into.append(batch.tobytes())
                    yield rate(batch)

            list(predict_blocks(imagery, P, run, batch_size=3))
        seen.append(batches)
    assert seen[0] == seen[1]
    assert len(seen[0]) > 3


def test_strips_begin_at_tiles_of_the_output() -> None:
    assert blocks.STRIP_MULTIPLE % TILE == 0
