"""Mark the pixels of a new tile that nobody has labelled in its mask.

These are pixels without data, pixels outside the areas that were labelled, and those that the
user's mask itself calls unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from roofseg.core.images import UNKNOWN, UNKNOWN_IN_FILES, file_values
from roofseg.intake.chips import write_like
from roofseg.intake.inspect import MAX_EXPANSION, open_bounded, parts
from roofseg.intake.rasterize import FootprintLayer, covered_pixels
from roofseg.tiles.bands import find_rgb, is_all_valid, read_rgb
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.tile import TilePair, check_tile, read_tile_mask

Flags = npt.NDArray[np.bool_]


def missing_pixels(image: Path, max_expansion: float = MAX_EXPANSION) -> Flags:
    """Find the pixels of imagery without data (see `read_rgb`): (H, W) bool.

    Raises UserError if it cannot be read.
    """
    with open_bounded(image, max_expansion) as source:
        bands = find_rgb(image, source)
        missing = np.zeros(source.shape, bool)
        if not is_all_valid(source, bands) or np.dtype(bands.dtype).kind == "f":
            for part in parts(source):
                missing[part.toslices()] = ~read_rgb(source, bands, part)[1]
    return missing


def mark_unlabelled(tile: TilePair, missing: Flags, areas: FootprintLayer | None) -> TilePair:
    """Write unknown pixels into a tile's mask, and delete the tile if no others are left.

    A mask that has no unknown pixel stays as it is. Otherwise it becomes a GeoTIFF with 0 for
    background, 255 for building and `UNKNOWN_IN_FILES`.

    Args:
        tile: the tile; its ``unknown`` is the value that its mask holds for unknown pixels.
        missing: (H, W) bool, the pixels without data.
        areas: the areas that were labelled; None for everywhere.

    Returns:
        The tile as it is now. Its ``unknown`` is None if all pixels are known; its files are gone
        if no pixel is.

    Raises:
        UserError: image and mask do not agree (see `check_tile`), the mask cannot be read or has
            other values, or ``areas`` cannot be placed on the image
    """
    if areas:
        missing = missing | (covered_pixels(areas, tile.image, "leave out --areas")[0] == 0)
    if tile.unknown is None and not missing.any():
        return tile
    check_tile(tile, 1)
    mask = read_tile_mask(tile.mask, tile.unknown)
    mask[missing] = UNKNOWN
    is_unknown = mask == UNKNOWN
    if not is_unknown.any():
        return TilePair(tile.name, tile.split, tile.image, tile.mask)
    marked = tile.mask.with_name(f"{tile.name}.tif")
    if is_unknown.all():
        remove_raster(tile.image)
        remove_raster(tile.mask)
    else:
        scratch = tile.mask.with_name(f".{tile.name}.tif")
        write_like(file_values(mask)[..., None], tile.mask, scratch)
        remove_raster(tile.mask)
        scratch.rename(marked)
    return TilePair(tile.name, tile.split, tile.image, marked, UNKNOWN_IN_FILES)


def remove_raster(path: Path) -> None:
    """Remove a raster and the files beside it that GDAL reads with it."""
    with open_raster(path) as source:
        files = source.files
    for file in files:
        Path(file).unlink()
