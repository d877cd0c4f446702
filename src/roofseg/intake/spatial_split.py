"""Divide tiles into train, val and test so that neighbours stay together.

Neighbouring tiles look alike (same roofs, same light, same shadows), so scores on a test tile
beside a train tile are too high. Therefore whole blocks of neighbours are assigned to a split
(Roberts et al. 2017, "Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure").
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError

from roofseg.core.errors import UserError
from roofseg.cutting.leakage import reprojected
from roofseg.recipe.split import SPLITS
from roofseg.tiles.grid import Grid
from roofseg.tiles.ground import ground_crs, is_on_earth

# Number of random divisions to draw; the one with the most similar splits is used.
DRAWS = 200
# `fitting_side` tries squares that shrink by this factor.
SHRINK = 1.25
DECILES = np.linspace(0.1, 0.9, 9)


def find_blocks(grids: Mapping[str, Grid], side: float | None = None) -> list[list[str]]:
    """Group tiles that must stay in one split.

    Args:
        grids: the grid of each tile, by name.
        side: None: tiles that touch or overlap (a gap of less than a pixel counts as touching) form
            a block, together with all tiles connected through them. A length in metres: the
            ground is divided into squares of that side, and tiles whose centres lie in the same
            square form a block; overlapping tiles always stay together.

    Where coordinates are not lengths (degrees, Web Mercator), tiles are compared and squares laid
    in an equal-area projection around the first tile.

    Returns:
        The tiles of each block, sorted; blocks in the order of their first tile. A tile
        without georeference, or whose coordinates cannot be compared with those of other tiles, is
        its own block.

    Raises:
        UserError: a tile's outline cannot be computed in the CRS of the others, or ``side`` is
            given and the units of that CRS are not lengths.
    """
    blocks = [[name] for name, grid in grids.items() if grid.transform is None]
    places: list[object]
    for crs, names in _comparable(grids).items():
        outlines = [_outline(name, grids[name], crs) for name in names]
        counts = np.array([grids[name].height * grids[name].width for name in names])
        pixels = np.sqrt(shapely.area(outlines) / counts)  # sides, in units of the outlines
        # Growing by half a pixel joins tiles that touch; shrinking by a quarter only those that
        # overlap.
        grown = pixels * (0.5 if side is None else -0.25)
        joined = shapely.union_all(shapely.buffer(outlines, grown, join_style="mitre"))
        parts = shapely.get_parts(joined)
        part_of = shapely.STRtree(parts).nearest(shapely.centroid(outlines)).tolist()
        places = part_of
        if side is not None:
            squares = _squares(shapely.centroid(parts), side, crs)
            places = [squares[part] for part in part_of]
        together: dict[object, list[str]] = defaultdict(list)
        for name, place in zip(names, places, strict=True):
            together[place].append(name)
        blocks += together.values()
    return sorted(sorted(block) for block in blocks)


def touching_pairs(grids: Mapping[str, Grid]) -> list[tuple[str, str]]:
    """The pairs of tiles that touch or overlap, in alphabetical order; `find_blocks` says when."""
    pairs: set[tuple[str, str]] = set()
    for crs, names in _comparable(grids).items():
        outlines = [_outline(name, grids[name], crs) for name in names]
        counts = np.array([grids[name].height * grids[name].width for name in names])
        grown = shapely.buffer(
            outlines, np.sqrt(shapely.area(outlines) / counts) / 2, join_style="mitre"
        )
        found = shapely.STRtree(grown).query(grown, predicate="intersects")
        named = ((names[one], names[other]) for one, other in found.T.tolist() if one != other)
        pairs |= {(min(pair), max(pair)) for pair in named}
    return sorted(pairs)


def fitting_side(grids: Mapping[str, Grid], count: int) -> float:
    """The side (metres) of large squares that give at least ``count`` blocks.

    Tries ever smaller squares, from one that holds all tiles to one like a tile. If none gives
    ``count`` blocks, the side that gives the most.

    Raises:
        UserError: as `find_blocks`, or no tile is georeferenced
    """
    groups = _comparable(grids)
    if not groups:
        raise UserError("--block: no tile is georeferenced, so nothing tells their squares.")
    crs, names = max(groups.items(), key=lambda group: len(group[1]))
    outlines = [_outline(name, grids[name], crs) for name in names]
    left, bottom, right, top = shapely.total_bounds(outlines).tolist()
    extent = max(right - left, top - bottom)
    tile = math.sqrt(float(np.median(shapely.area(outlines))))
    steps = math.ceil(math.log(extent / tile, SHRINK))
    blocks: dict[float, int] = {}
    for step in range(steps + 1):
        side = float(f"{max(extent / SHRINK**step, tile) * _unit(crs):.2g}")
        blocks[side] = len(find_blocks(grids, side))
        if blocks[side] >= count:
            return side
    return max(blocks, key=blocks.__getitem__)


def divide(
    blocks: Sequence[Sequence[str]],
    fractions: Mapping[str, float],
    *,
    seed: int,
    val: float = 1 / 6,
    test: float = 1 / 6,
) -> dict[str, str]:
    """Divide blocks of tiles into train, val and test, stratified by building fraction.

    Draws `DRAWS` random divisions with the wanted shares (as near as whole blocks allow) and takes
    the one whose val and test have building fractions most like those of all tiles: the larger of
    their mean differences in deciles is smallest (Morgan and Rubin 2012, "Rerandomization to
    improve covariate balance in experiments").

    Args:
        blocks: groups of tiles that stay together.
        fractions: the share of building pixels of each tile, [0, 1].
        seed: the same seed gives the same division.
        val, test: shares of all tiles, between 0 and 1; train gets the rest. Every split gets at
            least one block.

    Returns:
        The split of each tile, by name.

    Raises:
        UserError: there are fewer than three blocks, or the shares leave a split empty.
    """
    if not (val > 0 and test > 0 and val + test < 1):
        raise UserError(
            f"--val {val:g} and --test {test:g}: expected two shares of the tiles above 0, with a "
            "sum below 1, such as 0.17 and 0.17: the rest is for train."
        )
    tiles = [tile for block in blocks for tile in block]
    if len(tiles) < len(SPLITS):
        raise UserError(
            f"{len(tiles)} {'tile' if len(tiles) == 1 else 'tiles'}: expected at least 3: one "
            "each for train, val and test. Cut a large raster into tiles, for example with "
            "`gdal_retile.py -ps 5000 5000 -targetDir DIR FILE`."
        )
    if len(blocks) < len(SPLITS):
        raise UserError(
            f"{len(tiles)} tiles in {len(blocks)} {'block' if len(blocks) == 1 else 'blocks'} that "
            "overlap or share a square: expected at least 3 blocks, one each for train, val and "
            "test. Use --block METRES with smaller squares, leave out tiles that overlap others, "
            "or give your own split with --split FILE."
        )
    rng = np.random.default_rng(seed)
    shares = dict(zip(SPLITS, (1 - val - test, val, test), strict=True))
    wanted = {split: share * len(tiles) for split, share in shares.items()}

    def deciles(tiles: Sequence[str]) -> npt.NDArray[np.floating]:
        return np.quantile([fractions[tile] for tile in tiles], DECILES)

    overall = deciles(tiles)

    def imbalance(division: Mapping[str, Sequence[str]]) -> float:
        differences = (deciles(division[split]) - overall for split in ("val", "test"))
        return max(float(np.abs(difference).mean()) for difference in differences)

    best = min((_draw(blocks, wanted, rng) for _ in range(DRAWS)), key=imbalance)
    return {tile: split for split in SPLITS for tile in sorted(best[split])}


def _draw(
    blocks: Sequence[Sequence[str]], wanted: Mapping[str, float], rng: np.random.Generator
) -> dict[str, list[str]]:
    """Draw a division: give blocks, largest first, to the split that lacks the most tiles."""
    shuffled = [blocks[index] for index in rng.permutation(len(blocks))]
    shuffled.sort(key=len, reverse=True)  # stable: blocks of one size stay in random order
    taken: dict[str, list[str]] = {split: [] for split in SPLITS}
    for done, block in enumerate(shuffled):
        empty = [split for split in SPLITS if not taken[split]]
        # The last blocks are reserved for splits that have none yet.
        candidates = empty if len(shuffled) - done <= len(empty) else SPLITS
        neediest = max(candidates, key=lambda split: wanted[split] - len(taken[split]))
        taken[neediest] += block
    return taken


def _comparable(grids: Mapping[str, Grid]) -> dict[CRS | None, list[str]]:
    """Group georeferenced tiles by the CRS in which to compare them.

    All tiles with coordinates on the Earth are compared in the `ground_crs` of the first of them.
    Tiles in an engineering CRS, or without CRS, are compared only with tiles of the same CRS, or
    none.
    """
    groups: dict[CRS | None, list[str]] = {}
    earth: CRS | None = None
    for name, grid in grids.items():
        if grid.transform is None:
            continue
        crs = grid.crs
        if crs is not None and is_on_earth(crs):
            earth = earth or ground_crs(crs, grid.transform, grid.height, grid.width)
            crs = earth
        groups.setdefault(crs, []).append(name)
    return groups


def _outline(name: str, grid: Grid, crs: CRS | None) -> shapely.Polygon:
    """A tile's outline in the coordinates of ``crs``."""
    assert grid.transform is not None
    corners = np.array([grid.transform @ corner for corner in grid.corners])
    if crs != grid.crs:
        (corners,) = reprojected(corners[None], grid.crs, crs)
    outline = shapely.Polygon(corners) if np.isfinite(corners).all() else shapely.Polygon()
    if not outline.is_valid or not outline.area > 0:
        where = "" if grid.crs is None else f" in {grid.crs.to_string()}"
        raise UserError(
            f"tile {name}: its outline{where} is not a quadrangle on the ground, so its "
            "neighbours cannot be found. Correct its georeference, or give your own split with "
            "--split FILE."
        )
    return outline


def _squares(
    centres: Sequence[shapely.Point], side: float, crs: CRS | None
) -> list[tuple[float, float]]:
    """The square (column, row) that each centre lies in; ``centres`` are in ``crs``."""
    unit = side / _unit(crs)
    return [(centre.x // unit, centre.y // unit) for centre in centres]


def _unit(crs: CRS | None) -> float:
    """Metres per unit of coordinates; 1 without a CRS."""
    if crs is None:
        return 1.0
    try:
        return float(crs.linear_units_factor[1])
    except CRSError:
        raise UserError(
            f"--block: the tiles' coordinates are in {crs.to_string()}, whose units are not metres "
            "on the ground. Correct their CRS, or give your own split with --split FILE."
        ) from None
