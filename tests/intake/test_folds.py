from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine

from roofseg.core.errors import UserError
from roofseg.intake.folds import divide_into_folds, group_tiles, touching_others
from roofseg.tiles.grid import Grid

UTM = CRS.from_epsg(32614)
SIZE, GSD = 100, 0.3


def mosaic(columns: int, rows: int, step: float = 1) -> dict[str, Grid]:
    """Tiles of 30 m whose corners lie ``step`` tiles apart."""
    return {
        f"{column}{row}": Grid(
            SIZE,
            SIZE,
            UTM,
            Affine(GSD, 0, 621000 + 30 * step * column, 0, -GSD, 3350000 - 30 * step * row),
        )
        for column in range(columns)
        for row in range(rows)
    }


def test_tiles_apart_are_groups_of_one() -> None:
    apart = [[name] for name in sorted(mosaic(5, 6))]
    assert group_tiles(mosaic(5, 6, step=2), 5) == (apart, None)


def test_a_mosaic_without_gaps_is_divided_into_squares() -> None:
    grids = mosaic(6, 6)
    groups, side = group_tiles(grids, 5)
    assert side is not None
    assert 10 <= len(groups) < 36
    assert sorted(name for group in groups for name in group) == sorted(grids)
    division = divide_into_folds(groups, dict.fromkeys(grids, 0.2), folds=5, seed=1)
    assert all(len({division[name] for name in group}) == 1 for group in groups)


def test_tiles_without_georeference_are_groups_of_one() -> None:
    grids = {name: Grid(SIZE, SIZE, None, None) for name in "abc"}
    assert group_tiles(grids, 5) == ([["a"], ["b"], ["c"]], None)
    assert touching_others(grids, {"a": 1, "b": 2, "c": 3}) == dict.fromkeys("abc")


def test_clusters_stay_whole_and_fewer_than_folds_are_an_error() -> None:
    """Four clusters of six tiles are not cut into squares to make five folds of them."""
    part = mosaic(3, 2)
    grids = {
        f"{cluster}-{name}": Grid(
            SIZE, SIZE, UTM, Affine.translation(1000 * cluster, 0) @ grid.transform
        )
        for cluster in range(4)
        for name, grid in part.items()
        if grid.transform
    }
    groups, side = group_tiles(grids, 5)
    assert ([len(group) for group in groups], side) == ([6, 6, 6, 6], None)
    with pytest.raises(UserError, match="at most 4 folds"):
        divide_into_folds(groups, dict.fromkeys(grids, 0.2), folds=5, seed=1)


def test_tiles_of_two_folds_that_touch_are_found() -> None:
    grids = mosaic(2, 2) | {"far": mosaic(9, 9)["88"]}
    folds = {"00": 1, "01": 1, "10": 2, "11": 1, "far": 2}
    touches = {"00": ["10"], "01": ["10"], "10": ["00", "01", "11"], "11": ["10"], "far": []}
    assert touching_others(grids, folds) == touches


def test_folds_have_similar_sizes_and_building_fractions() -> None:
    rng = np.random.default_rng(0)
    fractions = {f"t{index:02}": float(rng.beta(1, 4)) for index in range(30)}
    groups = [[name] for name in fractions]
    division = divide_into_folds(groups, fractions, folds=5, seed=42)
    assert list(division) == sorted(fractions)
    by_fold = [[fractions[t] for t, fold in division.items() if fold == n] for n in range(5)]
    assert [len(fold) for fold in by_fold] == [6] * 5
    names = list(fractions)
    random = [
        np.ptp([np.mean([fractions[t] for t in part]) for part in np.array_split(order, 5)])
        for order in (rng.permutation(names) for _ in range(100))
    ]
    assert np.ptp([np.mean(fold) for fold in by_fold]) < np.quantile(random, 0.2)


def test_the_seed_decides_and_the_order_of_the_groups_does_not_break_it() -> None:
    fractions = {f"t{index:02}": index / 30 for index in range(30)}
    groups = [[name] for name in fractions]
    one = divide_into_folds(groups, fractions, folds=3, seed=1)
    assert one == divide_into_folds(groups, fractions, folds=3, seed=1)
    assert one != divide_into_folds(groups, fractions, folds=3, seed=2)


@given(st.lists(st.integers(1, 5), min_size=3, max_size=12), st.integers(2, 3))
def test_groups_stay_together_and_no_fold_is_empty(sizes: list[int], folds: int) -> None:
    groups = [[f"{group}-{tile}" for tile in range(size)] for group, size in enumerate(sizes)]
    fractions = {tile: 0.1 for group in groups for tile in group}
    division = divide_into_folds(groups, fractions, folds=folds, seed=0)
    assert set(division.values()) == set(range(folds))
    assert all(len({division[tile] for tile in group}) == 1 for group in groups)


@pytest.mark.parametrize(
    ("groups", "folds", "message"),
    [
        ([["a", "b"], ["c"]], 3, r"folds: found 3, but the 3 tiles .* 2 groups .* at most 2 folds"),
        ([["a", "b"]], 2, r"found 2, but the 2 tiles .* only 1 group that .* Add tiles from"),
        ([["a"], ["b"]], 1, "folds: found 1; expected at least 2"),
    ],
)
def test_too_few_groups_are_an_error(groups: list[list[str]], folds: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        divide_into_folds(groups, dict.fromkeys("abc", 0.1), folds=folds, seed=0)
