"""Generated tiles: reproducible, georeferenced, and lit by one sun."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from graph import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from roofseg.core.errors import UserError
from roofseg.synthetic.layout import lay_out
from roofseg.synthetic.render import cast_shadow, render
from roofseg.synthetic.scene import (
    GSD,
    Building,
    Conditions,
    Cover,
    Roof,
    Scene,
    Sun,
    Tree,
    Wing,
    rectangle,
)
from roofseg.synthetic.tile import OPEN_CENTRES, generate_tile, tile_name, write_sample

GREY = (120.0, 120.0, 120.0)


def one_house(roof: Roof, sun: Sun, angle: float = 0.0) -> Scene:
    wing = Wing(0, 0, 60, 40, roof, eave=5.0, pitch=0.5)
    scene = Scene(sun, Conditions(noise=0.0, quality=100))
    scene.buildings.append(Building(0, 0, angle, (wing,), GREY, Cover.MEMBRANE))
    return scene


def disc(x: float, y: float, radius: float, size: int = 256) -> np.ndarray:
    """Select the pixels within ``radius`` of a position relative to the tile's centre."""
    axis = np.arange(size) - (size - 1) / 2
    return np.hypot(axis[None, :] - x, axis[:, None] - y) < radius


def test_same_arguments_give_the_same_tile() -> None:
    first, second = generate_tile(7, 2, 256), generate_tile(7, 2, 256)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()
    assert first.transform == second.transform


def test_files_are_byte_identical_and_replace_existing_ones(tmp_path: Path) -> None:
    found = []
    for run in ("a", "b"):
        imgs, msks = tmp_path / run / "imgs", tmp_path / run / "msks"
        imgs.mkdir(parents=True)
        (imgs / "left_over.tif").touch()
        write_sample(imgs, msks, tiles=2, size=256, seed=3)
        assert sorted(p.name for p in imgs.parent.iterdir()) == ["imgs", "msks"]
        found.append(
            {p.relative_to(tmp_path / run): p.read_bytes() for p in imgs.parent.glob("*/*")}
        )
    assert found[0] == found[1]
    names = {"sample01.tif", "sample02.tif"}
    assert {p.name for p in found[0]} == names
    assert len(found[0]) == 4


def test_seeds_and_tiles_differ() -> None:
    tiles = [generate_tile(*which, 256) for which in ((1, 1), (2, 1), (1, 2))]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (tiles[a].mask != tiles[b].mask).mean() > 0.05
        assert (tiles[a].image != tiles[b].image).mean() > 0.5


def test_rasters_are_georeferenced_eight_bit_and_aligned(tmp_path: Path) -> None:
    write_sample(tmp_path / "imgs", tmp_path / "msks", tiles=1, size=300, seed=0)
    with (
        rasterio.open(tmp_path / "imgs" / "sample01.tif") as image,
        rasterio.open(tmp_path / "msks" / "sample01.tif") as mask,
    ):
        assert image.dtypes == ("uint8",) * 3
        assert mask.dtypes == ("uint8",)
        assert image.shape == mask.shape == (300, 300)
        assert image.crs == mask.crs == rasterio.CRS.from_epsg(32614)
        assert image.transform == mask.transform == generate_tile(0, 1, 300).transform
        assert image.res == (0.3, 0.3)
        assert image.block_shapes[0] == (256, 256)
        assert set(np.unique(mask.read(1))) == {0, 255}
        tile = generate_tile(0, 1, 300)
        np.testing.assert_array_equal(np.moveaxis(image.read(), 0, 2), tile.image)
        np.testing.assert_array_equal(mask.read(1), tile.mask)


def test_tiles_do_not_overlap_on_the_ground() -> None:
    size = 64
    corners = [generate_tile(0, index, size).transform for index in (1, 2, 6, 7, 8, 13)]
    side = size * GSD
    for number, a in enumerate(corners):
        for b in corners[:number]:
            assert max(abs(a.c - b.c), abs(a.f - b.f)) >= side - 1e-6


@pytest.mark.parametrize("index", [1, 2, 3, 5, 10])
def test_roofs_cover_a_plausible_share(index: int) -> None:
    assert 0.04 < (generate_tile(42, index, 320).mask > 0).mean() < 0.5


@pytest.mark.parametrize("index", [4, 9, 16, 20, 34])
def test_open_centres_hold_hardly_a_roof(index: int) -> None:
    size = 400
    mask = generate_tile(42, index, size).mask > 0
    low = round(size * (1 - 448 / 1250) / 2)
    assert mask[low:-low, low:-low].mean() < 0.05
    assert mask.mean() > 0.02  # but there is something to slide to


def test_every_split_has_every_tile_once_and_an_open_centre() -> None:
    with (ROOT / "data/sample/split.csv").open(newline="") as file:
        split = {row["tile"]: row["split"] for row in csv.DictReader(file)}
    assert list(split) == [tile_name(index) for index in range(1, 37)]
    of = {part: [i for i in range(1, 37) if split[tile_name(i)] == part] for part in split.values()}
    assert of["val"] == [1, 6, 11, 16, 21, 26]
    assert of["test"] == [31, 32, 33, 34, 35, 36]
    assert len(of["train"]) == 24
    assert all(set(tiles) & set(OPEN_CENTRES) for tiles in of.values())


@settings(max_examples=8)
@given(azimuth=st.floats(0, 360), angle=st.floats(0, 3))
def test_the_ground_is_dark_on_the_side_away_from_the_sun(azimuth: float, angle: float) -> None:
    sun = Sun(azimuth, 45.0)
    image, _ = render(one_house(Roof.FLAT, sun, angle), 256, np.random.default_rng(0))
    x, y = sun.towards
    # From the middle of the house to its outline, along the sun's direction and across the walls;
    # its shadow reaches 5 m / tan 45 = 17 px further.
    u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    outline = min(30 / max(1e-9, abs(u)), 20 / max(1e-9, abs(v)))
    far = outline + 7
    dark = image[disc(-x * far, -y * far, 3)].mean()
    bright = image[disc(x * far, y * far, 3)].mean()
    assert dark < 0.7 * bright


@settings(max_examples=25)
@given(
    azimuth=st.floats(0, 360),
    elevation=st.floats(30, 60),
    height=st.floats(5, 15),
)
def test_a_shadow_is_as_long_as_height_over_tangent(
    azimuth: float, elevation: float, height: float
) -> None:
    field = np.zeros((301, 301), np.float32)
    field[140:161, 140:161] = height
    sun = Sun(azimuth, elevation)
    shadow = cast_shadow(field, sun)
    x, y = sun.towards
    steps = np.arange(0, 140, 0.5)
    path = shadow[np.round(150 - steps * y).astype(int), np.round(150 - steps * x).astype(int)]
    edge = 10.5 / max(abs(x), abs(y))  # from the middle of the box to its side, along the ray
    expected = edge + height / math.tan(math.radians(elevation)) / GSD
    # Each doubling interpolates, which wears a tip off: by 5.1 px at worst, along a diagonal.
    assert -6 < steps[path > 0.5].max() - expected < 0


def test_roof_faces_towards_the_sun_are_bright() -> None:
    image, mask = render(one_house(Roof.GABLE, Sun(180.0, 40.0)), 256, np.random.default_rng(0))
    north, south = image[disc(0, -10, 6)].mean(), image[disc(0, 10, 6)].mean()
    assert south > 1.5 * north
    assert (mask > 0).sum() == 60 * 40


def test_mask_is_the_footprint_even_below_a_tree() -> None:
    scene = one_house(Roof.HIP, Sun(150.0, 40.0), angle=0.4)
    bare_image, bare_mask = render(scene, 256, np.random.default_rng(1))
    scene.trees.append(Tree(25.0, 12.0, 20.0, 9.0, (50.0, 70.0, 45.0), bare=False))
    image, mask = render(scene, 256, np.random.default_rng(1))
    np.testing.assert_array_equal(mask, bare_mask)
    roof_below = disc(22, 11, 6) & (mask > 0)
    assert roof_below.sum() > 50
    assert np.abs(image[roof_below].astype(float) - bare_image[roof_below]).mean() > 15
    assert (mask > 0).sum() == pytest.approx(60 * 40, rel=0.01)


def test_no_tree_grows_out_of_a_roof() -> None:
    scene = lay_out(np.random.default_rng(5), 512, 3, None)
    mask = render(scene, 512, np.random.default_rng(5))[1]
    trunks = np.array([(tree.y, tree.x) for tree in scene.trees]) + 256
    seen = trunks[((trunks > 0) & (trunks < 511)).all(axis=1)].astype(int)
    assert len(seen) > 100
    # They may stand against a wall, under the eaves: only the roof's inner part counts.
    inner = cv2.erode(mask, np.ones((7, 7), np.uint8))
    assert (inner[seen[:, 0], seen[:, 1]] > 0).mean() < 0.01


def test_rectangle_is_turned_from_x_towards_y() -> None:
    corners = rectangle(10, 20, 8, 4, math.pi / 2)
    np.testing.assert_allclose(np.ptp(corners, axis=0), (4, 8))
    np.testing.assert_allclose(corners.mean(0), (10, 20))


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"tiles": 0, "size": 256, "seed": 1}, "tiles: 0"),
        ({"tiles": 1, "size": 63, "seed": 1}, "size: 63"),
        ({"tiles": 1, "size": 256, "seed": -1}, "seed: -1"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    tmp_path: Path, asked: dict[str, int], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        write_sample(tmp_path / "imgs", tmp_path / "msks", **asked)
    assert list(tmp_path.iterdir()) == []
