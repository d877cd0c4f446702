"""Tiny datasets for the tests: raster files, and folders with tiles and a split."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from roofseg.cutting.cut import make_patches

DRIVERS = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}
SPLIT = {"b": "train", "a": "train", "c": "val", "d": "test"}
P = 64
CRS = "EPSG:32614"
TRANSFORM = Affine(0.3, 0.0, 621000.0, 0.0, -0.3, 3350000.0)


def write_raster(path: Path, pixels: npt.NDArray[np.generic], **profile: object) -> None:
    """Write (H, W) or (H, W, bands) pixels as the format of the suffix."""
    bands = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # some rasters have no transform
        with rasterio.open(
            path,
            "w",
            driver=DRIVERS[path.suffix],
            height=height,
            width=width,
            count=count,
            dtype=bands.dtype,
            **profile,
        ) as target:
            target.write(bands)


def tile_pixels(seed: int, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a bright roof on dark ground: an image (size, size, 3), and a mask (size, size) of 0/1.

    The side of the roof is a quarter of the tile's, and its place is random.
    """
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 100, (size, size, 3)).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    row, col = rng.integers(0, size - size // 4, 2)
    mask[row : row + size // 4, col : col + size // 4] = 1
    image[mask == 1] += 120
    return image, mask


def write_dataset(
    folder: Path,
    split: dict[str, str],
    *,
    size: int = 96,
    suffix: str = ".tif",
    georeferenced: bool = True,
) -> Path:
    """Write a whole dataset: a tile of ``size`` pixels square for each name in ``split``.

    The tiles are side by side, in a row to the east.
    """
    for seed, name in enumerate(split):
        place = TRANSFORM @ Affine.translation(seed * size, 0)
        profile = {"crs": CRS, "transform": place} if georeferenced else {}
        image, mask = tile_pixels(seed, size)
        write_raster(folder / "imgs" / f"{name}{suffix}", image, **profile)
        write_raster(folder / "msks" / f"{name}{suffix}", mask * np.uint8(255), **profile)
    lines = "".join(f"{name},{place}\n" for name, place in split.items())
    (folder / "split.csv").write_text(f"tile,split\n{lines}")
    (folder / "nudges.csv").write_text("tile,row,col\n")
    (folder / "LICENSE.md").write_text("SPDX-License-Identifier: CC0-1.0\n\nRandom pixels.\n")
    return folder


def make(dataset: Path, out: Path, patch_size: int = P, fraction: float = 0.05) -> list[str]:
    """Cut patches of ``dataset`` into ``out``, and return the warnings."""
    warned: list[str] = []
    make_patches(
        dataset, out, patch_size=patch_size, min_building_fraction=fraction, warn=warned.append
    )
    return warned
