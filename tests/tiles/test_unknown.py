from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import write_raster

from roofseg.core.errors import UserError
from roofseg.core.images import UNKNOWN
from roofseg.cutting.find import find_rasters
from roofseg.tiles.tile import read_tile_mask
from roofseg.tiles.unknown import read_unknown, write_unknown

MASK = np.array([[0, 1, UNKNOWN], [1, 0, UNKNOWN]], np.uint8)


def test_a_folder_of_masks_declares_one_value(tmp_path: Path) -> None:
    assert read_unknown(tmp_path) is None
    for value in (127, 255, -9999, 0.5):
        write_unknown(tmp_path, value)
        assert read_unknown(tmp_path) == value
    (tmp_path / "unknown.txt").write_text(" nan \r\n")
    assert np.isnan(read_unknown(tmp_path))
    problems: list[str] = []
    assert find_rasters(tmp_path, problems) == {}  # the file is no mask
    assert not problems


@pytest.mark.parametrize("text", ["", "0", "0.0", "grey", "127 255", "inf", "\xff"])
def test_what_is_no_value_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "unknown.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"unknown\.txt: found .*; expected one number"):
        read_unknown(tmp_path)


@pytest.mark.parametrize(
    ("building", "unknown", "dtype"),
    [
        (1, 255, np.uint8),
        (255, 127, np.uint8),
        (255, 1, np.uint8),
        (1, 65535, np.uint16),
        (1, -9999, np.int16),
        (255, np.nan, np.float32),
    ],
)
def test_whatever_the_labels_use(
    tmp_path: Path, building: int, unknown: float, dtype: type
) -> None:
    values = np.choose(np.minimum(MASK, 2), [0, building, unknown]).astype(dtype)
    write_raster(tmp_path / "m.tif", values)
    np.testing.assert_array_equal(read_tile_mask(tmp_path / "m.tif", unknown), MASK)
    with pytest.raises(UserError, match=r"rows 0 to 1 hold .*If one value means .*unknown\.txt"):
        read_tile_mask(tmp_path / "m.tif")


def test_a_value_that_is_not_declared_stays_an_error(tmp_path: Path) -> None:
    write_raster(tmp_path / "m.tif", np.array([[0, 255], [127, 128]], np.uint8))
    with pytest.raises(UserError, match="rows 0 to 1 hold the values 0, 128, 255; expected 0"):
        read_tile_mask(tmp_path / "m.tif", 127)
