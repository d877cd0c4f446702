from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pandas.testing import assert_frame_equal
from raster_files import name_bands
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg import metrics
from roofseg.core.errors import UserError
from roofseg.core.images import UNKNOWN
from roofseg.evaluation.full_tiles import full_tile_table
from roofseg.tiles.tile import TilePair

SIZES = {"a": (150, 97), "007": (40, 64), "NA": (64, 200)}  # also smaller than a window


class Redness:
    """A predictor whose probability is the red value of each pixel."""

    window, gsd, provenance = 64, (), {}

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return (images[..., 0] / np.float32(255)).astype(np.float32)


def tile(folder: Path, name: str, **profile: object) -> tuple[TilePair, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(name))
    image = rng.integers(1, 256, (*SIZES[name], 3), dtype=np.uint8)
    mask = (image[:, :, 0] > 100).astype(np.uint8)
    pair = TilePair(name, "val", folder / "imgs" / f"{name}.tif", folder / "msks" / f"{name}.tif")
    write_raster(pair.image, image, crs=CRS, transform=TRANSFORM, **profile)
    write_raster(pair.mask, mask * np.uint8(255), crs=CRS, transform=TRANSFORM)
    return pair, image, mask


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_pixel_of_every_tile_is_counted_once(tmp_path: Path, batch_size: int) -> None:
    pairs, images, masks = zip(*[tile(tmp_path, name) for name in SIZES], strict=True)
    found = full_tile_table(Redness(), pairs, batch_size=batch_size)
    for row, name, image, mask in zip(found.index, SIZES, images, masks, strict=True):
        expected = metrics.table([name], image[None, :, :, 0] / np.float32(255), mask[None])
        assert_frame_equal(found.loc[[row]].reset_index(drop=True), expected)
    assert (found.fn > 0).all()


def test_pixels_without_data_are_not_counted(tmp_path: Path) -> None:
    pair, image, mask = tile(tmp_path, "a", nodata=0)
    image[10:90, 20:60] = 0
    write_raster(pair.image, image, crs=CRS, transform=TRANSFORM, nodata=0)
    (row,) = full_tile_table(Redness(), [pair], batch_size=2).itertuples()
    assert row.tp + row.fp + row.fn + row.tn == mask.size - 80 * 40


def test_bands_in_another_order_are_noted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = []
    for name in SIZES:
        pair, image, _ = tile(tmp_path, name)
        write_raster(pair.image, image[:, :, ::-1], photometric="minisblack")
        name_bands(pair.image, "blue", "green", "red")
        pairs.append(pair)
    found = full_tile_table(Redness(), pairs, batch_size=3)
    assert (found.fp == 0).all()  # with another band as red, some pixels would be
    assert capsys.readouterr().err == (
        "warning: 3 bands of uint8: bands 3, 2, 1 are read as red, green, blue (by colour "
        "interpretation): a, 007, NA\n"
    )


def test_a_tile_without_any_data_is_named(tmp_path: Path) -> None:
    pair, image, _ = tile(tmp_path, "a")
    write_raster(pair.image, np.zeros_like(image), crs=CRS, transform=TRANSFORM, nodata=0)
    with pytest.raises(UserError, match=r"imgs/a\.tif: no pixel holds data"):
        full_tile_table(Redness(), [pair], batch_size=2)


def test_a_tile_that_was_cut_off_is_named(tmp_path: Path) -> None:
    pair, *_ = tile(tmp_path, "a")
    pair.mask.write_bytes(pair.mask.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"msks/a\.tif: cannot be read"):
        full_tile_table(Redness(), [pair], batch_size=2)


def test_unknown_pixels_are_not_counted(tmp_path: Path) -> None:
    pair, image, mask = tile(tmp_path, "a")
    values = mask * np.uint8(255)
    values[100:, :50] = 127
    write_raster(pair.mask, values, crs=CRS, transform=TRANSFORM)
    with pytest.raises(UserError, match=r"a\.tif: rows .* hold .*127.*; expected 0"):
        full_tile_table(Redness(), [pair], batch_size=2)
    declared = replace(pair, unknown=127)
    found = full_tile_table(Redness(), [declared], batch_size=2)
    truth = np.where(values == 127, UNKNOWN, mask)[None]
    assert_frame_equal(found, metrics.table(["a"], image[None, ..., 0] / np.float32(255), truth))
    assert found[metrics.COUNTS].sum(axis=1).item() == mask.size - 50 * 50

    write_raster(pair.mask, np.full_like(values, 127), crs=CRS, transform=TRANSFORM)
    with pytest.raises(UserError, match=r"a\.tif: no pixel holds data and is labelled"):
        full_tile_table(Redness(), [declared], batch_size=2)
