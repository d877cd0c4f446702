from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from benchmarks.overlaps import every_pair_near, every_pair_overlaps
from roofseg.core.images import UNKNOWN, Image
from roofseg.cutting.leakage import (
    NEAR,
    Fingerprint,
    near_duplicates,
    overlaps,
    perceptual_hash,
    shared_ground,
)
from roofseg.tiles.grid import Grid

UTM14, UTM15 = CRS.from_epsg(32614), CRS.from_epsg(32615)
SIZE = 64
CORNER = Affine(0.3, 0.0, 621000.0, 0.0, -0.3, 3350000.0)


def picture(seed: int, size: int = SIZE) -> Image:
    """Draw random smooth shapes with a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(int)
    return (smooth + rng.integers(-4, 5, smooth.shape)).clip(0, 255).astype(np.uint8)


def placed(
    tile: str, split: str, image: Image, crs: CRS | None, transform: Affine | None
) -> Fingerprint:
    grid = Grid(len(image), len(image), crs, transform)
    return Fingerprint.of(tile, split, image, grid, np.zeros(image.shape[:2], np.uint8))


def at(
    col: float, row: float, *, split: str = "test", seed: int = 1, crs: CRS | None = UTM14
) -> Fingerprint:
    """The fingerprint of a patch whose corner is ``col`` and ``row`` pixels from CORNER."""
    place = CORNER @ Affine.translation(col, row)
    return placed(f"tile{seed}", split, picture(seed), crs, place)


def unplaced(image: Image, split: str) -> Fingerprint:
    return placed(f"{split}tile", split, image, None, None)


HERE = at(0, 0, split="train", seed=0)


def test_overlapping_ground_is_named_with_its_size() -> None:
    assert overlaps([HERE, at(50, -24)]) == [
        "tile0 (train) and tile1 (test) share 14 x 40 px of ground"
    ]


@pytest.mark.parametrize("place", [(SIZE, 0), (0, SIZE), (-SIZE, -SIZE), (SIZE - 0.4, 0), (200, 9)])
def test_neighbours_that_touch_do_not_overlap(place: tuple[float, float]) -> None:
    assert overlaps([HERE, at(*place)]) == []


@given(col=st.integers(-2 * SIZE, 2 * SIZE), row=st.integers(-2 * SIZE, 2 * SIZE))
def test_overlap_is_symmetric_and_follows_from_the_windows(col: int, row: int) -> None:
    there = at(col, row)
    assert len(overlaps([HERE, there])) == len(overlaps([there, HERE]))
    assert bool(overlaps([HERE, there])) == (abs(col) < SIZE and abs(row) < SIZE)


def test_patches_of_one_split_may_overlap() -> None:
    assert overlaps([HERE, at(1, 1, split="train")]) == []


@pytest.mark.parametrize("splits", [("train", "val"), ("val", "test"), ("train", "test")])
def test_every_two_splits_are_compared(splits: tuple[str, str]) -> None:
    assert overlaps([at(0, 0, split=splits[0], seed=0), at(1, 1, split=splits[1])])


def test_patches_in_different_crss_are_compared() -> None:
    (x,), (y,) = transform(UTM14, UTM15, [CORNER.c], [CORNER.f])
    same = placed("b", "test", picture(1), UTM15, Affine(0.3, 0, x, 0, -0.3, y))
    far = placed("c", "test", picture(2), UTM15, Affine(0.3, 0, x + 500, 0, -0.3, y))
    assert len(overlaps([HERE, same])) == 1
    assert overlaps([HERE, far]) == []


def test_south_up_and_turned_patches_are_compared_by_their_outlines() -> None:
    # The place of HERE, stored from south to north; and a place a kilometre further north.
    south_up = CORNER @ Affine.translation(0, SIZE) @ Affine.scale(1, -1)
    far = south_up @ Affine.translation(0, 3333)
    for place, shared in ((south_up, 1), (far, 0)):
        assert len(overlaps([HERE, placed("s", "test", picture(1), UTM14, place)])) == shared
    # The bounding box of a patch turned by 45 degrees overlaps HERE before its outline does.
    for (col, row), shared in (((95, 55), 0), ((80, 35), 1)):
        turned = CORNER @ Affine.translation(col, row) @ Affine.rotation(45)
        assert len(overlaps([HERE, placed("t", "test", picture(1), UTM14, turned)])) == shared


def test_local_coordinates_are_not_compared_with_others() -> None:
    site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    assert overlaps([HERE, at(0, 0, crs=site)]) == []
    assert overlaps([at(0, 0, split="train", seed=0, crs=site), at(1, 1, crs=site)])


def test_a_place_that_the_other_crs_cannot_map_shares_no_ground() -> None:
    beyond_the_pole = Affine(0.001, 0, -97, 0, -0.001, 95)
    far = placed("t", "test", picture(1), CRS.from_epsg(4326), beyond_the_pole)
    assert overlaps([HERE, far]) == []


def test_places_without_a_common_reference_are_not_compared() -> None:
    assert overlaps([HERE, at(1, 1, crs=None)]) == []
    assert overlaps([HERE, unplaced(picture(1), "test")]) == []
    # Two patches with transforms but no CRS are taken to have the same coordinates.
    assert overlaps([at(0, 0, split="train", seed=0, crs=None), at(1, 1, crs=None)])


def test_equal_pixels_overlap_whatever_their_georeference() -> None:
    image = picture(0)
    found = overlaps([unplaced(image, "train"), unplaced(image.copy(), "val")])
    assert found == ["traintile (train) and valtile (val) are the same, pixel by pixel"]
    assert len(overlaps([HERE, at(900, 900, seed=0)])) == 1
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    assert overlaps([unplaced(image, "train"), unplaced(changed, "val")]) == []


def test_copies_look_alike_and_other_pictures_do_not() -> None:
    image = picture(3, 128)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)
    copies = {
        "jpeg": np.asarray(jpeg, np.uint8),
        "brighter": np.clip(image * 0.8 + 40, 0, 255).astype(np.uint8),
        "smaller": np.asarray(cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA), np.uint8),
    }
    for name, copy in copies.items():
        found = near_duplicates([unplaced(image, "train"), unplaced(copy, "test")])
        assert len(found) == 1, name
        assert found[0].startswith("traintile (train) and testtile (test) look alike (")
    others = [placed(str(seed), "test", picture(seed, 128), None, None) for seed in range(4, 60)]
    assert near_duplicates([unplaced(image, "train"), *others]) == []
    # Equal pixels are reported as an overlap only.
    assert near_duplicates([unplaced(image, "train"), unplaced(image.copy(), "test")]) == []


def test_half_of_the_64_bits_of_a_perceptual_hash_are_set() -> None:
    hashes = [perceptual_hash(picture(seed)) for seed in range(20)]
    assert len(set(hashes)) == 20
    assert all(value.bit_count() == 32 for value in hashes)
    assert all(0 <= value < 2**64 for value in hashes)


SPLITS = st.sampled_from(["train", "val", "test"])
SITE = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
ZONE_14 = CRS.from_wkt(UTM14.to_wkt(version="WKT1_GDAL"))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Draw a grid near CORNER: of any CRS, size and rotation, or without georeference."""
    crs = draw(st.sampled_from([UTM14, UTM14, UTM15, CRS.from_epsg(4326), ZONE_14, SITE, None]))
    x, y = (draw(st.integers(-150, 150)) for _ in range(2))
    place = Affine.translation(CORNER.c + x, CORNER.f + y)
    if crs in (UTM15, CRS.from_epsg(4326)):
        (east,), (north,) = transform(UTM14, crs, [place.c], [place.f])
        unit = 1.0 if crs == UTM15 else 1e-5
        beyond_the_pole = unit == 1e-5 and draw(st.integers(0, 5)) == 0
        place = Affine.translation(east, 95 if beyond_the_pole else north) @ Affine.scale(unit)
    gsd = draw(st.sampled_from([0.3, 0.7]))
    place = place @ Affine.rotation(draw(st.sampled_from([0, 0, 30]))) @ Affine.scale(gsd, -gsd)
    height, width = (draw(st.sampled_from([64, 200, 333])) for _ in range(2))
    return Grid(height, width, crs, None if draw(st.integers(0, 9)) == 0 else place)


@given(placed=st.lists(st.tuples(grids(), SPLITS), max_size=25))
def test_the_index_finds_the_same_ground_as_comparing_every_pair(
    placed: list[tuple[Grid, str]],
) -> None:
    found, splits = [grid for grid, _ in placed], [split for _, split in placed]
    assert shared_ground(found, splits) == every_pair_overlaps(found, splits)


@given(
    drawn=st.lists(
        st.tuples(
            st.sampled_from([0, 2**64 - 1, 0x0F0F << 48]),
            st.sets(st.integers(0, 63), max_size=NEAR + 1),
            SPLITS,
            st.integers(0, 3),
        ),
        max_size=25,
    )
)
def test_near_duplicates_equal_those_of_comparing_every_pair(
    drawn: list[tuple[int, set[int], str, int]],
) -> None:
    prints = []
    for index, (base, flipped, split, pixels) in enumerate(drawn):
        perceptual = base ^ sum(1 << bit for bit in flipped)
        patch = replace(HERE, tile=str(index), split=split, exact=str(pixels))
        prints.append(replace(patch, perceptual=perceptual))
    of = {patch.tile: f"{patch.tile} ({patch.split})" for patch in prints}
    assert near_duplicates(prints) == [
        f"{of[one]} and {of[other]} look alike ({bits} of the 64 bits of their perceptual hashes "
        "differ)"
        for one, other, bits in every_pair_near(prints)
    ]


def test_patches_do_not_look_alike_for_what_they_lack() -> None:
    """Half of each is black, without data."""
    unknown = np.zeros((64, 64), np.uint8)
    unknown[:, 32:] = UNKNOWN
    grid = Grid(64, 64, None, None)
    prints = []
    for split, seed in (("train", 1), ("val", 2)):
        grey = np.random.default_rng(seed).integers(20, 90, (4, 4), np.uint8)
        image = np.kron(grey, np.ones((16, 16), np.uint8))[..., None].repeat(3, axis=2)
        image[unknown == UNKNOWN] = 0
        prints.append(
            [Fingerprint.of(split, split, image, grid, mask) for mask in (unknown, unknown * 0)]
        )
    with_unknown, without = zip(*prints, strict=True)
    differing = [(a.perceptual ^ b.perceptual).bit_count() for a, b in (with_unknown, without)]
    assert differing[0] > differing[1]
