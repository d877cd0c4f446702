from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.windows import Window
from tiny_dataset import CRS, TRANSFORM

from roofseg.mapping.cog import TILE, BandSpec, BlockWriter, NotWrittenError, write_errors_named

MASK = BandSpec("uint8", 255, "mode", "building")
RATES = BandSpec("float32", np.nan, "average", "probability")
HEIGHT, WIDTH = 1100, 1300


def canvas(path: Path, layer: BandSpec, **georeference: Any) -> BlockWriter:
    grid = {"crs": None, "transform": rasterio.Affine.identity(), **georeference}
    return BlockWriter(path, layer, height=HEIGHT, width=WIDTH, tags={"ROOFSEG_X": "ü 1"}, **grid)


def paint(target: BlockWriter, pixels: npt.NDArray[Any], rows: int) -> None:
    """In two strips of columns, each in blocks of ``rows`` rows."""
    for left, right in ((0, 2 * TILE), (2 * TILE, WIDTH)):
        for row in range(0, HEIGHT, rows):
            target.write(row, left, pixels[row : row + rows, left:right])


@pytest.mark.parametrize("layer", [MASK, RATES])
def test_blocks_become_a_cloud_optimised_geotiff(tmp_path: Path, layer: BandSpec) -> None:
    pixels = np.random.default_rng(0).random((HEIGHT, WIDTH)).round(1).astype(layer.dtype)
    pixels[:9] = layer.nodata
    with canvas(tmp_path / "a.tif", layer, crs=CRS, transform=TRANSFORM) as target:
        paint(target, pixels, rows=301)
    target.write_cog(tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as found:
        np.testing.assert_array_equal(found.read(1), pixels)
        structure = found.tags(ns="IMAGE_STRUCTURE")
        assert (structure["LAYOUT"], structure["COMPRESSION"]) == ("COG", "DEFLATE")
        assert found.block_shapes == [(TILE, TILE)]
        assert found.overviews(1) == [2, 4]
        assert (found.crs, found.transform) == (CRS, TRANSFORM)
        np.testing.assert_equal(found.nodata, layer.nodata)
        assert found.tags()["ROOFSEG_X"] == "ü 1"
        assert found.descriptions == (layer.description,)


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    """However they come; so no tile is written twice, which would leave a hole in the file."""
    pixels = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
    for rows in (1, 500, TILE, HEIGHT):
        with canvas(tmp_path / f"{rows}.tif", MASK) as target:
            paint(target, pixels, rows)
        target.write_cog(tmp_path / f"{rows}.cog.tif")
    for suffix in (".tif", ".cog.tif"):
        files = [tmp_path / f"{rows}{suffix}" for rows in (1, 500, TILE, HEIGHT)]
        assert len({file.read_bytes() for file in files}) == 1


def test_a_file_that_reads_back_differently_is_an_error(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
    with canvas(tmp_path / "a.tif", MASK, crs=CRS, transform=TRANSFORM) as target:
        paint(target, pixels, rows=301)
    with rasterio.open(tmp_path / "a.tif", "r+") as damaged:
        damaged.write(pixels[-1:, -1:] ^ 1, 1, window=Window(WIDTH - 1, HEIGHT - 1, 1, 1))
    with pytest.raises(OSError, match="reads back differently"):
        target.write_cog(tmp_path / "out.tif")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free space on that disk"),
        (errno.EDQUOT, "Free space on that disk, or raise your quota"),
        (errno.EFBIG, "Raise the limit on file sizes (`ulimit -f`), or use a disk for larger f"),
        (errno.EACCES, "Change the permissions of that file or of its folder"),
        (errno.EEXIST, "Move away the file or folder that has this name"),
        (errno.ENAMETOOLONG, "Use a shorter name"),
        (errno.EMFILE, "Raise the limit (`ulimit -n`), then"),
        (errno.ENFILE, "Close other programs, then"),
        (errno.EROFS, "Use a folder on a file system that is not read-only"),
        (errno.ENOENT, "Choose another folder with --out"),
        (None, "Free space on that disk, or raise your quota"),
    ],
)
def test_an_output_that_cannot_be_written_has_the_remedy_that_fits(
    number: int | None, remedy: str
) -> None:
    error = OSError(number, os.strerror(number), "/a/maps") if number else OSError("no table")
    with pytest.raises(NotWrittenError) as caught, write_errors_named(Path("/a/maps/t.tif")):
        raise error
    message = str(caught.value)
    reason = f"/a/maps: {os.strerror(number)}" if number else "no table"
    assert message.startswith(f"/a/maps/t.tif: cannot be written ({reason}). {remedy}")
    assert "then run the same command again: finished files are kept." in message
    assert "params.yaml" not in message
