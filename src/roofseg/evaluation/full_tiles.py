"""Score whole tiles, instead of one patch of each tile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial

import numpy as np
import pandas as pd
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.core.messages import gathered
from roofseg.core.progress import Progress, silent
from roofseg.core.terminal import warn
from roofseg.inference.predictor import Predictor
from roofseg.metrics import COUNTS, Integers, count, table_of_counts
from roofseg.sliding_window.blocks import predict_blocks
from roofseg.sliding_window.imagery import open_imagery
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.tile import TilePair, check_mask_values, mask_of


def full_tile_table(
    predictor: Predictor,
    tiles: Sequence[TilePair],
    *,
    batch_size: int,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Count and score all pixels of each tile that hold data and are labelled.

    `roofseg.sliding_window.blocks.predict_blocks` predicts the tiles, as in ``roofseg predict``, so
    the scores are those of the masks that it writes. Memory does not grow with a tile's height.
    Notes on the images, such as another order of bands, are printed on stderr.

    Args:
        predictor: the model; tiles are assumed to have the GSD that it was trained on.
        tiles: the image and mask of each tile, on the same grid.
        batch_size: windows at a time.
        progress: shows how many tiles are scored.

    Returns:
        As `roofseg.metrics.table`.

    Raises:
        UserError: a tile is damaged, holds no data, or is not labelled anywhere.
    """
    notes: list[tuple[str, str]] = []
    shown = progress(tiles, "Scoring whole tiles")
    counts = np.stack([_counts(predictor, tile, batch_size, notes) for tile in shown])
    for line in gathered(notes):
        warn(line)
    return table_of_counts([tile.name for tile in tiles], counts)


def _counts(
    predictor: Predictor, tile: TilePair, batch_size: int, notes: list[tuple[str, str]]
) -> Integers:
    """Count tp, fp, fn and tn of a tile: (4,) int64, pixels.

    Adds the notes on its image to ``notes``, with the tile's name.
    """
    total, building = np.zeros(len(COUNTS), np.int64), 0
    with ExitStack() as stack:
        imagery = stack.enter_context(open_imagery(str(tile.image)))
        notes += [(tile.name, note) for note in imagery.notes]
        mask = stack.enter_context(open_raster(tile.mask))
        infer = partial(map, predictor)
        blocks = predict_blocks(imagery, predictor.window, infer, batch_size=batch_size)
        for block in stack.enter_context(closing(blocks)):
            height, width = block.probability.shape
            values = mask.read(1, window=Window(block.col, block.row, width, height))
            building = check_mask_values(tile.mask, values, block.row, building, tile.unknown)
            truth, valid = mask_of(values, tile.unknown), block.valid
            total += np.concatenate(count(block.probability[valid][None], truth[valid][None]))
    if not total.any():
        raise UserError(
            f"{tile.image}: no pixel holds data and is labelled, so there is nothing to score. "
            "Remove the tile from split.csv, or correct its nodata value (see `gdalinfo`)."
        )
    return total
