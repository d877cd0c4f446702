from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine
from web_tiles import HALF, PX, tile_at, tile_transform

from roofseg.tiles.grid import Grid
from roofseg.tiles.ground import ground_gsd, ground_lengths

METRE = Affine(0.3, 0, 500000, 0, -0.3, 5e6)


def measured(crs: str, transform: Affine) -> tuple[float, float] | None:
    return ground_gsd(CRS.from_user_input(crs), transform, PX, PX)


class TestGroundLengths:
    def test_a_degree_of_latitude(self) -> None:
        lengths = ground_lengths("EPSG:4326", np.array([[30.0, 0.0], [30.0, 89.0]]), np.eye(2))
        expected = [[111319.49, 110574.39], [1949.4, 111693.9]]  # of WGS 84
        np.testing.assert_allclose(lengths, expected, rtol=2e-3)

    def test_across_the_antimeridian(self) -> None:
        step = np.array([[0.01, 0.0]])
        near, far = ground_lengths("EPSG:4326", np.array([[179.995, 40], [10, 40]]), step)
        assert near == pytest.approx(far)


class TestGroundGsd:
    @given(
        st.floats(-180, 179.99),
        st.floats(-80, 80),
        st.integers(15, 22),
        st.sampled_from([256, 512]),
    )
    def test_web_tiles_shrink_with_the_cosine_of_the_latitude(
        self, lon: float, lat: float, zoom: int, px: int
    ) -> None:
        place = tile_at(lon, lat, zoom)
        expected = 2 * HALF / 2**zoom / px * math.cos(math.radians(lat))
        for crs in ("EPSG:3857", "EPSG:4326"):
            transform = tile_transform(*place, crs, zoom, px)
            pixel = ground_gsd(CRS.from_user_input(crs), transform, px, px)
            assert pixel is not None
            # Web Mercator takes the Earth for a sphere, which is up to 0.7 % wrong.
            assert pixel == pytest.approx((expected, expected), rel=0.015)

    @given(st.floats(-85, 85), st.floats(-180, 180))
    def test_square_pixels_in_degrees_are_oblong_on_the_ground(
        self, lat: float, lon: float
    ) -> None:
        pixel = measured("EPSG:4326", Affine(1e-5, 0, lon, 0, -1e-5, lat))
        assert pixel is not None
        assert pixel[0] / pixel[1] == pytest.approx(math.cos(math.radians(lat)), rel=0.008)

    @pytest.mark.parametrize(
        ("crs", "transform", "pixel"),
        [
            ("EPSG:32633", METRE, (0.3, 0.3)),
            ("EPSG:32633", METRE @ Affine.rotation(30), (0.3, 0.3)),
            ("EPSG:32633", METRE @ Affine.scale(0.5, 2), (0.15, 0.6)),
            ("EPSG:2277", Affine(1, 0, 3.1e6, 0, -1, 1.008e7), (0.3048006096, 0.3048006096)),
        ],
    )
    def test_projections_that_keep_lengths_give_them(
        self, crs: str, transform: Affine, pixel: tuple[float, float]
    ) -> None:
        assert measured(crs, transform) == pytest.approx(pixel, rel=1e-9)

    def test_neighbouring_tiles_have_one_gsd(self) -> None:
        x, y = tile_at(13.4, 52.5)
        found = {
            Grid(PX, PX, CRS.from_user_input(crs), tile_transform(x, y + row, crs)).gsd
            for row in range(20)
            for crs in ("EPSG:3857", "EPSG:4326")
        }
        assert found == {0.182}

    @pytest.mark.parametrize(
        ("crs", "transform"),
        [
            (None, METRE),
            ("EPSG:32633", None),
            ('LOCAL_CS["site",UNIT["metre",1]]', METRE),
            ("EPSG:4326", Affine(1e-5, 0, 30, 0, -1e-5, 100)),
            ("EPSG:3857", Affine(0.3, 0, 3e7, 0, -0.3, 3e9)),
            ("EPSG:32633", Affine(1e9, 0, 1e12, 0, 1e9, 1e12)),
            ("EPSG:32633", Affine(0.3, 0.3, 500000, 0.3, 0.3, 5e6)),
        ],
        ids=["no CRS", "no transform", "a site", "latitude", "the pole", "far away", "a line"],
    )
    def test_unknown(self, crs: str | None, transform: Affine | None) -> None:
        assert ground_gsd(crs and CRS.from_user_input(crs), transform, 100, 100) is None


@pytest.mark.parametrize("degrees", [0, 30, 45])
def test_right_angles_are_those_on_the_ground(degrees: int) -> None:
    """At 60°, a degree of longitude is half as long as one of latitude."""
    turn = Affine.rotation(degrees)
    on_ground = Affine.translation(10.0, 60.0) @ Affine.scale(2e-6, -1e-6) @ turn
    in_degrees = Affine.translation(10.0, 60.0) @ Affine.scale(1e-6, -1e-6) @ turn
    crs = CRS.from_epsg(4326)
    assert not Grid(PX, PX, crs, on_ground).is_sheared
    assert Grid(PX, PX, crs, in_degrees).is_sheared == (degrees > 0)
    assert not Grid(PX, PX, None, in_degrees).is_sheared


def test_sides_for_resampling_are_not_rounded() -> None:
    """Three digits would move the far end of a raster of 20 000 px by up to 10 px."""
    transform = Affine.translation(10.0, 50.0) @ Affine.scale(3.7171e-6, -3.7171e-6)
    grid = Grid(PX, PX, CRS.from_epsg(4326), transform)
    steps = np.array([(transform.a, 0), (0, transform.e)])
    centre = np.array([transform @ (PX / 2, PX / 2)])
    assert grid.sides() == pytest.approx(ground_lengths("EPSG:4326", centre, steps)[0], rel=1e-9)
    assert grid.gsd == pytest.approx(math.sqrt(math.prod(grid.sides())), rel=1e-3)
    assert f"{grid.gsd:.3g}" == f"{grid.gsd:g}"
