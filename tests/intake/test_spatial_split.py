from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform
from web_tiles import HALF, ZOOM, tile_at, tile_transform

from roofseg.core.errors import UserError
from roofseg.intake.spatial_split import divide, find_blocks, fitting_side
from roofseg.recipe.split import SPLITS
from roofseg.tiles.grid import Grid

UTM = CRS.from_epsg(32614)
SIZE, GSD = 100, 0.3
WEST, NORTH = 621000.0, 3350040.0


def grid(
    column: float, row: float, crs: CRS | None = UTM, *, gsd: float = GSD, turned: float = 0
) -> Grid:
    """A tile of 100 px whose top-left corner lies this many tiles east and south of a place."""
    transform = (
        Affine.translation(WEST + column * SIZE * GSD, NORTH - row * SIZE * GSD)
        @ Affine.rotation(turned)
        @ Affine.scale(gsd, -gsd)
    )
    return Grid(SIZE, SIZE, crs, transform)


def mosaic(columns: int, rows: int, step: float = 1) -> dict[str, Grid]:
    return {
        f"{column}{row}": grid(column * step, row * step)
        for column in range(columns)
        for row in range(rows)
    }


PX = 1 / SIZE


def web_grid(x: int, y: int, crs: str) -> Grid:
    return Grid(256, 256, CRS.from_user_input(crs), tile_transform(x, y, crs))


def web_mosaic(lon: float, lat: float, crs: str, count: int) -> dict[str, Grid]:
    """A square of web tiles; beyond 180 degrees it goes on at -180."""
    x, y = tile_at(lon, lat)
    return {
        f"{column} {row}": web_grid((x + column) % 2**ZOOM, y + row, crs)
        for column in range(count)
        for row in range(count)
    }


def web_tile_side(lat: float) -> float:
    """The side of a web tile on the ground, in metres."""
    return 2 * HALF / 2**ZOOM * math.cos(math.radians(lat))


class TestFindBlocks:
    @pytest.mark.parametrize(
        ("other", "together"),
        [
            (grid(1, 0), True),
            (grid(1, 1), True),
            (grid(1 + 0.9 * PX, 0), True),
            (grid(1 + 1.5 * PX, 0), False),
            (grid(0.5, 0.5), True),
            (grid(0.2, 0.2, gsd=GSD / 4), True),
            (grid(1, 0, turned=45), True),
            (grid(0.9, -0.02, turned=45), True),
            (grid(0.9, -0.3, turned=45), False),
        ],
        ids=[
            "an edge",
            "a corner",
            "a gap under a pixel",
            "a gap over a pixel",
            "overlap",
            "inside",
            "turned, its corner at an edge",
            "turned, overlap",
            "turned, only their bounding boxes overlap",
        ],
    )
    def test_tiles_that_touch_or_overlap_are_together(self, other: Grid, together: bool) -> None:
        blocks = find_blocks({"a": grid(0, 0), "b": other})
        assert blocks == ([["a", "b"]] if together else [["a"], ["b"]])

    def test_a_chain_of_tiles_is_one_block(self) -> None:
        grids = {"c": grid(2, 0), "far": grid(9, 0), "a": grid(0, 0), "b": grid(1, 0)}
        assert find_blocks(grids) == [["a", "b", "c"], ["far"]]

    @given(st.sets(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=20))
    def test_blocks_are_the_tiles_connected_by_touching(self, places: set[tuple[int, int]]) -> None:
        halves = {f"{x},{y}": (x, y) for x, y in places}  # top-left corners, in half tiles
        blocks = find_blocks({name: grid(x / 2, y / 2) for name, (x, y) in halves.items()})
        expected, waiting = [], set(halves)
        while waiting:
            block, reached = set(), {min(waiting)}
            while reached:
                block |= reached
                reached = {
                    name
                    for name in waiting - block
                    for other in reached
                    if max(abs(a - b) for a, b in zip(halves[name], halves[other], strict=True)) < 3
                }
            expected.append(sorted(block))
            waiting -= block
        assert blocks == expected

    @given(st.permutations(list(mosaic(3, 2, 1.2) | {"x": grid(0.5, 0.5)})))
    def test_blocks_do_not_depend_on_the_order_of_tiles(self, names: list[str]) -> None:
        grids = mosaic(3, 2, 1.2) | {"x": grid(0.5, 0.5)}
        assert find_blocks({name: grids[name] for name in names}) == find_blocks(grids)

    def test_neighbours_in_another_crs_are_found(self) -> None:
        degrees = Affine(3.1e-6, 0, -97.7402, 0, -2.7e-6, 30.2737)
        grids = {
            "a": Grid(SIZE, SIZE, CRS.from_epsg(4326), degrees),
            "b": Grid(SIZE, SIZE, CRS.from_epsg(4326), Affine.translation(4e-4, 0) @ degrees),
        }
        (x,), (y,) = transform(grids["a"].crs, UTM, [-97.7402], [30.2737])
        grids["c"] = Grid(SIZE, SIZE, UTM, Affine(GSD, 0, x, 0, -GSD, y))
        assert find_blocks(grids) == [["a", "c"], ["b"]]

    def test_tiles_without_georeference_are_blocks_of_one(self) -> None:
        plain = Grid(SIZE, SIZE, None, None)
        assert find_blocks({"a": plain, "b": plain}) == [["a"], ["b"]]

    def test_engineering_coordinates_are_not_compared_with_others(self) -> None:
        site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
        grids = {
            "earth": grid(0, 0),
            "none": grid(0, 0, None),
            "none too": grid(1, 0, None),
            "site": grid(0, 0, site),
        }
        assert find_blocks(grids) == [["earth"], ["none", "none too"], ["site"]]

    def test_a_tile_that_is_a_line_is_named(self) -> None:
        flat = Grid(SIZE, SIZE, UTM, Affine(0.3, 0, WEST, 0.3, 0, NORTH))
        with pytest.raises(
            UserError, match=r"^tile b: its outline in EPSG:32614 is not a quadrangle on"
        ):
            find_blocks({"a": grid(0, 0), "b": flat})

    def test_a_tile_outside_the_crs_of_the_others_is_named(self) -> None:
        nowhere = Grid(SIZE, SIZE, CRS.from_epsg(4326), Affine(1e-6, 0, 5000, 0, -1e-6, 100))
        with pytest.raises(UserError, match=r"^tile b: its outline"):
            find_blocks({"a": grid(0, 0), "b": nowhere})


class TestSquares:
    def test_a_mosaic_is_divided_into_squares(self) -> None:
        # 6 x 6 tiles of 30 m, from a corner of the squares of 60 m on.
        blocks = find_blocks(mosaic(6, 6), side=60)
        assert len(blocks) == 9
        assert {len(block) for block in blocks} == {4}
        assert ["00", "01", "10", "11"] in blocks

    def test_tiles_that_overlap_stay_together_across_squares(self) -> None:
        grids = {"a": grid(0, 0), "b": grid(0.9, 0), "c": grid(2, 0), "d": grid(3, 0)}
        assert find_blocks(grids, side=30) == [["a", "b"], ["c"], ["d"]]

    def test_the_side_is_in_metres_in_any_unit(self) -> None:
        feet = CRS.from_epsg(2277)
        grids = {
            str(column): Grid(
                SIZE, SIZE, feet, Affine(1, 0, 3_100_000 + 100 * column, 0, -1, 10_080_100)
            )
            for column in range(8)
        }
        assert [len(block) for block in find_blocks(grids, side=200 * 0.3048006096)] == [2] * 4

    @given(
        st.floats(-179.999, 179.999),
        st.floats(-82, 82),
        st.sampled_from(["EPSG:4326", "EPSG:3857"]),
        st.integers(1, 4),
    )
    def test_web_tiles_are_divided_into_squares_on_the_ground(
        self, lon: float, lat: float, crs: str, across: int
    ) -> None:
        grids = web_mosaic(lon, lat, crs, 8)
        tile = web_tile_side(lat)
        # Only roughly, since Web Mercator takes the Earth for a sphere.
        blocks = find_blocks(grids, side=across * tile * 1.01)
        assert len(blocks) in range((8 // across) ** 2, (-(-8 // across) + 1) ** 2 + 1)
        assert max(map(len, blocks)) <= (across + 1) ** 2
        for block in blocks:
            columns, rows = np.array([tuple(map(int, name.split())) for name in block]).T
            assert max(np.ptp(columns), np.ptp(rows)) <= across

    @pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
    def test_tiles_that_touch_across_the_antimeridian_are_together(self, crs: str) -> None:
        x, y = tile_at(179.9999, 65)
        grids = {
            str(column): web_grid((column) % 2**ZOOM, y, crs) for column in (x - 1, x, x + 1, x + 3)
        }
        assert grids[str(x + 1)].transform.c < 0 < grids[str(x)].transform.c
        assert find_blocks(grids) == [[str(x - 1), str(x), str(x + 1)], [str(x + 3)]]

    def test_squares_need_known_units(self) -> None:
        site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
        with pytest.raises(UserError, match=r"^--block: .* LOCAL_CS.* whose units are not metres"):
            find_blocks({"a": grid(0, 0, site)}, side=60)


class TestFittingSide:
    @pytest.mark.whole
    @given(
        st.floats(-179.999, 179.999),
        st.floats(-82, 82),
        st.sampled_from(["EPSG:4326", "EPSG:3857"]),
    )
    def test_a_patch_of_web_tiles_gets_enough_squares(
        self, lon: float, lat: float, crs: str
    ) -> None:
        grids = web_mosaic(lon, lat, crs, 8)
        side = fitting_side(grids, 12)
        assert 12 <= len(find_blocks(grids, side)) <= 36
        assert side > web_tile_side(lat)

    @pytest.mark.parametrize(
        ("grids", "blocks"),
        [
            (mosaic(6, 6), 12),
            (mosaic(3, 1), 3),
            (mosaic(40, 1), 12),
            (mosaic(12, 12, 0.9), 1),
            ({"a": grid(0, 0)}, 1),
        ],
        ids=["a patch", "three tiles", "a strip", "overlap", "one tile"],
    )
    def test_as_many_squares_as_there_can_be(self, grids: dict[str, Grid], blocks: int) -> None:
        found = len(find_blocks(grids, fitting_side(grids, 12)))
        assert blocks <= found <= 2 * blocks

    def test_squares_need_a_georeference(self) -> None:
        with pytest.raises(UserError, match=r"^--block: no tile is georeferenced"):
            fitting_side({"a": Grid(SIZE, SIZE, None, None)}, 12)


def shares(fractions: Mapping[str, float], division: Mapping[str, str], split: str) -> list[float]:
    return [fractions[tile] for tile, its in division.items() if its == split]


class TestDivide:
    @given(st.lists(st.integers(1, 6), min_size=3, max_size=20), st.integers(0, 2**32 - 1))
    def test_blocks_stay_whole_and_no_split_is_empty(self, sizes: list[int], seed: int) -> None:
        blocks = [[f"{index}.{tile}" for tile in range(size)] for index, size in enumerate(sizes)]
        tiles = [tile for block in blocks for tile in block]
        fractions = {tile: (hash_of(tile) % 100) / 100 for tile in tiles}
        division = divide(blocks, fractions, seed=seed)
        assert sorted(division) == sorted(tiles)
        assert set(division.values()) == set(SPLITS)
        assert all(len({division[tile] for tile in block}) == 1 for block in blocks)
        assert divide(blocks, fractions, seed=seed) == division

    @pytest.mark.parametrize(
        ("count", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (30, (20, 5, 5)), (36, (24, 6, 6))]
    )
    def test_shares_are_a_sixth_each(self, count: int, sizes: tuple[int, ...]) -> None:
        division = divide(
            [[str(i)] for i in range(count)], {str(i): 0.2 for i in range(count)}, seed=1
        )
        assert tuple(list(division.values()).count(split) for split in SPLITS) == sizes

    def test_other_shares(self) -> None:
        fractions = {str(i): 0.2 for i in range(40)}
        division = divide([[tile] for tile in fractions], fractions, seed=1, val=0.25, test=0.1)
        assert [list(division.values()).count(split) for split in SPLITS] == [26, 10, 4]

    def test_a_large_block_goes_to_train(self) -> None:
        blocks = [["v"], [f"big{i}" for i in range(10)], ["w"]]
        division = divide(blocks, {tile: 0.1 for block in blocks for tile in block}, seed=3)
        assert {division[f"big{i}"] for i in range(10)} == {"train"}

    def test_val_and_test_have_the_whole_range_of_building_fractions(self) -> None:
        fractions = {f"{i:02d}": i / 100 for i in range(36)}
        everywhere = np.quantile(list(fractions.values()), [0.1, 0.5, 0.9])
        for seed in range(20):
            division = divide([[tile] for tile in fractions], fractions, seed=seed)
            for split in ("val", "test"):
                found = np.quantile(shares(fractions, division, split), [0.1, 0.5, 0.9])
                np.testing.assert_allclose(found, everywhere, atol=0.06)

    def test_the_seed_determines_the_split(self) -> None:
        fractions = {f"{i:02d}": i / 100 for i in range(36)}
        blocks = [[tile] for tile in fractions]
        divisions = {tuple(divide(blocks, fractions, seed=seed).items()) for seed in range(5)}
        assert len(divisions) == 5

    @pytest.mark.parametrize(
        ("blocks", "says"),
        [
            ([], "0 tiles: expected at least 3"),
            ([["a"]], "1 tile: expected at least 3.*gdal_retile"),
            ([["a"], ["b"]], "2 tiles: expected at least 3"),
            ([["a", "b", "c", "d"]], "4 tiles in 1 block that overlap .*--block METRES"),
            ([["a", "b"], ["c", "d"]], "4 tiles in 2 blocks that overlap .*--split FILE"),
        ],
    )
    def test_too_few_tiles_or_blocks(self, blocks: list[list[str]], says: str) -> None:
        with pytest.raises(UserError, match=says):
            divide(blocks, dict.fromkeys("abcd", 0.1), seed=1)

    @pytest.mark.parametrize(
        ("val", "test"), [(0, 0.2), (0.2, -0.1), (0.5, 0.5), (float("nan"), 0.1)]
    )
    def test_shares_that_leave_nothing(self, val: float, test: float) -> None:
        says = re.escape(f"--val {val:g} and --test {test:g}: expected two shares")
        with pytest.raises(UserError, match=says):
            divide([["a"], ["b"], ["c"]], dict.fromkeys("abc", 0.1), seed=1, val=val, test=test)


def hash_of(text: str) -> int:
    """The same in every process, unlike hash()."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(text))
