"""Divide tiles into folds so that neighbours stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.transform import Affine

from roofseg.core.errors import UserError
from roofseg.cutting.seen import grid_of
from roofseg.intake.spatial_split import (
    DECILES,
    DRAWS,
    find_blocks,
    fitting_side,
    touching_pairs,
)
from roofseg.tiles.grid import Grid
from roofseg.tiles.manifest import TileRecord

GROUPS_PER_FOLD = 2
"""Tiles that all touch are divided into squares that give at least so many groups per fold."""
MIN_GROUPS = 3
"""With fewer groups no number of folds is possible."""


def grids_of(tile: TileRecord, *, row: int, col: int, patch_size: int) -> tuple[Grid, Grid]:
    """The grids of a tile and of its patch, from the records of cutting.

    Args:
        tile: its row in patches/tiles.csv.
        row, col: the top-left pixel of the patch in the tile.
        patch_size: side of the patch in pixels.
    """
    patch = grid_of(tile, patch_size)
    corner = patch.transform and patch.transform @ Affine.translation(-col, -row)
    return Grid(int(tile.height), int(tile.width), patch.crs, corner), patch


def group_tiles(grids: Mapping[str, Grid], folds: int) -> tuple[list[list[str]], float | None]:
    """Group neighbouring tiles that must stay in one fold.

    Tiles that touch or overlap form a group. If that gives fewer than three groups, as in a mosaic
    without gaps, the ground is divided into squares instead, as `roofseg.intake.division` does. The
    tiles of a square form a group, so tiles on both sides of its edges may be in different folds.

    Args:
        grids: the grid of each tile, by name.
        folds: the number of folds.

    Returns:
        The tiles of each group, and the side of the squares in metres, None without squares.

    Raises:
        UserError: a tile cannot be compared with its neighbours
    """
    groups = find_blocks(grids)
    if len(groups) < MIN_GROUPS <= len(grids):
        side = fitting_side(grids, GROUPS_PER_FOLD * folds)
        return find_blocks(grids, side), side
    return groups, None


def divide_into_folds(
    groups: Sequence[Sequence[str]], fractions: Mapping[str, float], *, folds: int, seed: int
) -> dict[str, int]:
    """Divide groups of tiles into folds of similar size, stratified by building fraction.

    As `roofseg.intake.spatial_split.divide`: of `DRAWS` random divisions it takes the one whose
    folds differ least in size, and of those the one whose building fractions are most like those of
    all tiles: the largest mean difference in deciles of any fold is smallest (Morgan and Rubin
    2012).

    Args:
        groups: groups of tiles that stay together.
        fractions: the share of building pixels of each tile, [0, 1].
        folds: the number of folds, at least 2.
        seed: the same seed gives the same division.

    Returns:
        The fold of each tile, from 0, by name in alphabetical order.

    Raises:
        UserError: there are fewer groups than folds, or fewer than two folds.
    """
    tiles = sorted(tile for group in groups for tile in group)
    if folds < 2:
        raise UserError(f"folds: found {folds}; expected at least 2.")
    if len(groups) < folds:
        raise UserError(
            f"folds: found {folds}, but the {len(tiles)} tiles of train and val form only "
            f"{len(groups)} {'group' if len(groups) == 1 else 'groups'} that stay together "
            "(tiles that touch, or share a square). "
            + (
                f"Expected at most {len(groups)} folds."
                if len(groups) > 1
                else "Add tiles from elsewhere."
            )
        )
    rng = np.random.default_rng(seed)
    overall = np.quantile([fractions[tile] for tile in tiles], DECILES)

    def badness(division: Sequence[Sequence[str]]) -> tuple[int, float]:
        sizes = [len(fold) for fold in division]
        deciles = (np.quantile([fractions[tile] for tile in fold], DECILES) for fold in division)
        return (
            max(sizes) - min(sizes),
            max(float(np.abs(found - overall).mean()) for found in deciles),
        )

    best = min((_draw(groups, folds, rng) for _ in range(DRAWS)), key=badness)
    of_tile = {tile: number for number, fold in enumerate(best) for tile in fold}
    return {tile: of_tile[tile] for tile in tiles}


def _draw(groups: Sequence[Sequence[str]], folds: int, rng: np.random.Generator) -> list[list[str]]:
    """Draw a division: give groups, largest first, to the fold with the fewest tiles."""
    shuffled = [groups[index] for index in rng.permutation(len(groups))]
    shuffled.sort(key=len, reverse=True)  # stable: groups of one size stay in random order
    division: list[list[str]] = [[] for _ in range(folds)]
    for group in shuffled:
        min(division, key=len).extend(group)
    return division


def touching_others(
    grids: Mapping[str, Grid], folds: Mapping[str, int]
) -> dict[str, list[str] | None]:
    """The tiles of other folds that each tile touches; None if it has no georeference.

    Args:
        grids, folds: the grid and the fold of each tile, by name.
    """
    touches = {
        name: None if grids[name].transform is None else list[str]() for name in sorted(folds)
    }
    for one, other in touching_pairs(grids):
        if folds[one] != folds[other]:
            for tile, neighbour in ((one, other), (other, one)):
                if (found := touches[tile]) is not None:
                    found.append(neighbour)
    return touches
