"""Chips of a web map: their place, and which of them are merged."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine
from tiny_dataset import write_raster
from web_tiles import PX, tile_at, tile_transform

from roofseg.intake import chips as intake_chips
from roofseg.intake.chips import (
    MIN_TILES,
    find_squares,
    merge_images,
    merge_masks,
    place_by_name,
    squares_to_merge,
    write_place,
)
from roofseg.tiles.grid import Grid, read_grid, shift_px
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.tile import read_tile_mask

PLAIN = Grid(PX, PX, None, None)
WEB = CRS.from_epsg(3857)


def chips(
    places: set[tuple[int, int]], crs: str = "EPSG:3857", at: tuple[float, float] = (85.32, 27.7)
) -> dict[str, Grid]:
    """The grids of web tiles by "column row" from a place."""
    x, y = tile_at(*at)
    known = CRS.from_user_input(crs)
    return {
        f"{column} {row}": Grid(PX, PX, known, tile_transform(x + column, y + row, crs))
        for column, row in sorted(places)
    }


def rectangle(columns: int, rows: int) -> set[tuple[int, int]]:
    return {(column, row) for column in range(columns) for row in range(rows)}


class TestPlaceByName:
    @given(st.floats(-180, 179.99), st.floats(-84, 82.4), st.integers(14, 22))
    def test_a_tile_lies_where_its_name_says(self, lon: float, lat: float, zoom: int) -> None:
        x, y = tile_at(lon, lat, zoom)
        placed = place_by_name(f"OAM-{x}-{y}-{zoom}", PLAIN)
        assert placed is not None
        assert placed.crs == WEB
        assert shift_px(placed, tile_transform(x, y, zoom=zoom)) < 1e-3

    @pytest.mark.parametrize(
        "name", ["386472-221072-19", "OAM-386472-221072-19", "a_1-386472-221072-19"]
    )
    def test_names_with_and_without_prefix(self, name: str) -> None:
        placed = place_by_name(name, Grid(512, 512, None, None))
        assert placed is not None
        assert shift_px(placed, tile_transform(386472, 221072, px=512)) < 1e-3

    @pytest.mark.parametrize(
        ("name", "grid"),
        [
            ("OAM-386472-221072-19", Grid(PX, PX, WEB, Affine(1, 0, 0, 0, -1, 0))),
            ("OAM-386472-221072-19", Grid(PX, PX - 1, None, None)),
            ("OAM-386472-221072-19a", PLAIN),
            ("OAM-524288-221072-19", PLAIN),
            ("386472-221072", PLAIN),
            ("flight-2023-10-12", PLAIN),
            ("flight-2023-12-15", PLAIN),
            ("12-31-23", PLAIN),
            ("plot-2019-2020-16", PLAIN),
            ("tile7", PLAIN),
        ],
        ids=[
            "georeferenced",
            "not square",
            "a suffix",
            "no such tile",
            "no zoom",
            "a date",
            "a date like a zoom",
            "a short date",
            "years",
            "none",
        ],
    )
    def test_other_rasters_have_no_place(self, name: str, grid: Grid) -> None:
        assert place_by_name(name, grid) is None

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
    def test_the_place_is_written_beside_the_raster(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"t{suffix}"
        write_raster(path, np.zeros((PX, PX, 3), np.uint8))
        placed = place_by_name("386472-221072-19", PLAIN)
        assert placed is not None
        write_place(path, placed)
        with open_raster(path) as source:
            assert read_grid(source) == placed


class TestFindSquares:
    @given(
        st.sampled_from(["EPSG:3857", "EPSG:4326"]),
        st.floats(-179.9, 179.9),
        st.floats(-82, 82),
        st.integers(2, 4),
        st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1),
    )
    def test_each_square_is_whole_and_no_chip_is_used_twice(
        self, crs: str, lon: float, lat: float, count: int, places: set[tuple[int, int]]
    ) -> None:
        squares = find_squares(chips(places, crs, (lon, lat)), count)
        used = set()
        for square in squares:
            column, row = map(int, square[0].split())
            expected = [f"{column + i} {row + j}" for j in range(count) for i in range(count)]
            assert square == expected
            assert used.isdisjoint(square)
            used |= set(square)
        left = places - {tuple(map(int, name.split())) for name in used}
        for column, row in left:  # none is overlooked
            corner = {(column + i, row + j) for j in range(count) for i in range(count)}
            assert not corner <= left

    def test_the_search_ends_at_the_first_place_without_a_chip(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With --merge 999, a million places of each chip would be compared."""
        compared: list[Grid] = []
        moved = intake_chips._moved

        def count_moved(*args: Any) -> Grid:
            compared.append(moved(*args))
            return compared[-1]

        monkeypatch.setattr(intake_chips, "_moved", count_moved)
        assert find_squares(chips(rectangle(20, 20)), 21) == []
        assert len(compared) <= 20 * 20 * 21

    def test_a_rectangle_is_used_up(self) -> None:
        assert len(find_squares(chips(rectangle(6, 4)), 2)) == 6

    @pytest.mark.parametrize(
        "other",
        [
            Grid(PX, PX, WEB, tile_transform(386473, 221072) @ Affine.translation(0.2, 0)),
            Grid(PX, PX, WEB, tile_transform(386473, 221072) @ Affine.scale(1.001)),
            Grid(PX, PX, CRS.from_epsg(3395), tile_transform(386473, 221072)),
            Grid(PX * 2, PX * 2, WEB, tile_transform(386473, 221072, px=2 * PX)),
            Grid(PX, PX, None, None),
        ],
        ids=["shifted", "scaled", "another CRS", "another size", "no place"],
    )
    def test_chips_of_another_grid_are_not_merged(self, other: Grid) -> None:
        grids = {
            f"{x} {y}": Grid(PX, PX, WEB, tile_transform(x, y))
            for x in (386472, 386473)
            for y in (221072, 221073)
        }
        assert len(find_squares(grids, 2)) == 1
        assert find_squares({**grids, "386473 221072": other}, 2) == []


class TestSquaresToMerge:
    @pytest.mark.parametrize(
        ("places", "patch_size", "side"),
        [
            (rectangle(10, 10), 512, 2),
            (rectangle(10, 10), 480, 2),
            (rectangle(10, 10), 256, 1),
            (rectangle(10, 10), 1024, 2),
            (rectangle(20, 20), 1024, 4),
            (rectangle(9, 9), 512, 1),
            (rectangle(100, 1), 512, 1),
            ({(3 * column, 0) for column in range(40)} | rectangle(10, 10), 512, 2),
            ({(0, 3 * row) for row in range(5, 110)} | rectangle(10, 10), 512, 1),
        ],
        ids=[
            "a patch of 512",
            "a patch of 480",
            "no smaller than a patch",
            "too few tiles of 1024",
            "a patch of 1024",
            "too few tiles",
            "a strip",
            "some apart",
            "most apart",
        ],
    )
    def test_the_side_fits_patch_and_chips(
        self, places: set[tuple[int, int]], patch_size: int, side: int
    ) -> None:
        squares = squares_to_merge(chips(places), patch_size)
        assert {len(square) for square in squares} == ({side**2} if side > 1 else set())
        assert len(squares) >= MIN_TILES or side == 1

    @pytest.mark.parametrize(
        ("groups", "patch_size", "sides"),
        [
            ([(1000, 10, 10)], 1024, {}),
            ([(700, 12, 10)], 1024, {2: 30}),
            ([(400, 20, 20)], 512, {}),
            ([(300, 24, 20)], 1024, {4: 30}),
            ([(256, 24, 20), (512, 8, 6)], 1024, {4: 30, 2: 12}),
            ([(256, 24, 20), (512, 8, 6)], 512, {2: 120}),
            ([(256, 24, 20), (1, 1, 1)], 1024, {4: 30}),
            ([(256, 24, 20), (1000, 10, 10)], 1024, {3: 48}),
            ([(256, 24, 20), (1100, 1, 1)], 1024, {4: 30}),
        ],
    )
    def test_the_tiles_hold_a_patch_and_little_more(
        self, groups: list[tuple[int, int, int]], patch_size: int, sides: dict[int, int]
    ) -> None:
        """At least half of the chips' pixels lie in patches, also with chips of several sizes."""
        grids = {
            f"{px} {column} {row}": Grid(px, px, WEB, Affine(1, 0, column * px, 0, -1, -row * px))
            for px, columns, rows in groups
            for column, row in rectangle(columns, rows)
        }
        squares = squares_to_merge(grids, patch_size)
        assert Counter(math.isqrt(len(square)) for square in squares) == sides

    def test_no_chips(self) -> None:
        assert squares_to_merge({}, 512) == []


class TestMerge:
    def test_chips_are_joined_row_by_row(self, tmp_path: Path) -> None:
        image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
        mask = (image[..., 0] % 2).astype(np.uint8)
        paths = []
        for row in range(2):
            for col in range(2):
                part = np.s_[4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
                path = tmp_path / f"{row}{col}.png"
                write_raster(path, image[part])
                write_raster(tmp_path / f"m{row}{col}.png", mask[part] * (255 if row else 1))
                paths.append(path)
        place = Grid(4, 4, WEB, tile_transform(386472, 221072, px=4))
        write_place(paths[0], place)
        merge_images(paths, tmp_path / "image.tif")
        merge_masks([tmp_path / f"m{path.name}" for path in paths], paths[0], tmp_path / "mask.tif")
        with open_raster(tmp_path / "image.tif") as source:
            np.testing.assert_array_equal(source.read().transpose(1, 2, 0), image)
            assert read_grid(source) == Grid(8, 8, WEB, place.transform)
        np.testing.assert_array_equal(read_tile_mask(tmp_path / "mask.tif"), mask)
        with open_raster(tmp_path / "mask.tif") as source:
            assert read_grid(source) == Grid(8, 8, WEB, place.transform)
