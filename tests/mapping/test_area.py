from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from roofseg.mapping.area import Ellipsoid, Plane, Polygons, measure_ground

UTM = Affine(0.3, 0.0, 621000.0, 0.0, -0.3, 3350000.0)
# A building of 20 x 10 m with a court of 5 x 4 m, in metres from a corner.
BUILDING = shapely.box(0, 0, 20, 10) - shapely.box(10, 3, 15, 7)
# The length of a degree of latitude at 52.5°.
METRES_PER_DEGREE = 111_132.954 - 559.822 * math.cos(math.radians(2 * 52.5))


def polygons(*found: shapely.Polygon) -> Polygons:
    return np.array(found, object)


def measure(crs: str, transform: Affine = UTM) -> Plane | Ellipsoid | None:
    return measure_ground(CRS.from_user_input(crs), transform, 100, 100, None)


class TestPlane:
    @pytest.mark.parametrize(
        ("crs", "transform", "unit"),
        [
            ("EPSG:32614", UTM, 1.0),
            ("EPSG:32614+5703", UTM, 1.0),  # with heights
            ("EPSG:2277", Affine(1, 0, 3.1e6, 0, -1, 1.008e7), 0.3048006096),  # US survey feet
            ("EPSG:2193", Affine(1, 0, 1.75e6, 0, -1, 5.4e6), 1.0),  # northing before easting
            ("EPSG:3035", Affine(1, 0, 4.3e6, 0, -1, 3.2e6), 1.0),
            ("EPSG:32614", UTM @ Affine.rotation(30), 1.0),
        ],
    )
    def test_projected_coordinates_are_lengths(
        self, crs: str, transform: Affine, unit: float
    ) -> None:
        plane = measure(crs, transform)
        assert isinstance(plane, Plane)
        assert plane.unit == pytest.approx(unit, rel=1e-9)
        assert plane.areas(polygons(BUILDING)) == pytest.approx([180 * unit**2])
        assert plane.scales(polygons(BUILDING)) == pytest.approx(np.full((1, 2), unit))

    @pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
    def test_without_a_crs_the_gsd_decides(self, crs: str | None) -> None:
        parsed = crs and CRS.from_user_input(crs)
        assert measure_ground(parsed or None, Affine.identity(), 9, 9, 0.5) == Plane(0.5)
        assert measure_ground(parsed or None, Affine.scale(2), 9, 9, 0.5) == Plane(0.25)
        assert measure_ground(parsed or None, Affine.identity(), 9, 9, None) is None


class TestEllipsoid:
    @pytest.mark.parametrize(
        ("crs", "corner", "unit"),
        [
            ("EPSG:4326", (13.4, 52.5), 1 / METRES_PER_DEGREE),
            ("EPSG:4807", (11.5, 58.3), 1 / METRES_PER_DEGREE / 0.9),  # grads from Paris
            ("EPSG:3857", (1491681.2, 6891041.7), 1 / math.cos(math.radians(52.5))),
        ],
    )
    def test_degrees_and_distorted_lengths_are_measured_on_the_ellipsoid(
        self, crs: str, corner: tuple[float, float], unit: float
    ) -> None:
        transform = Affine(unit, 0, corner[0], 0, -unit, corner[1])
        found = measure(crs, transform)
        assert isinstance(found, Ellipsoid)
        across, up = found.scales(polygons(shapely.Point(corner).buffer(unit)))[0]
        building = shapely.transform(BUILDING, lambda xy: xy / (across, up) + corner)
        # Rings may run either way round in shapely.
        alike = shapely.Polygon(building.exterior.reverse(), building.interiors)
        for polygon in (building, building.reverse(), alike):
            assert found.areas(polygons(polygon)) == pytest.approx([180], rel=1e-5)
        assert up == pytest.approx(1 / unit, rel=0.01)

    def test_scales_differ_between_places(self) -> None:
        found = measure("EPSG:4326", Affine(1, 0, 0, 0, -1, 70))
        assert isinstance(found, Ellipsoid)
        near, far = (shapely.Point(0, y).buffer(1e-3) for y in (0, 60))
        (east, _), (east_far, _) = found.scales(polygons(near, far))
        assert east_far / east == pytest.approx(0.5, rel=0.01)

    @pytest.mark.parametrize(
        "transform",
        [
            Affine(2, 0, -180, 0, -1, 90),
            Affine(2, 0, -180, 0, 1, -90),  # from the south pole upwards
            Affine(2, 0, -181, 0, -1, 90.5),  # with pixels whose centres lie on the pole
        ],
    )
    def test_a_raster_may_reach_a_pole(self, transform: Affine) -> None:
        found = measure_ground(CRS.from_epsg(4326), transform, 180, 50, None)
        assert isinstance(found, Ellipsoid)
        cap = shapely.box(*(transform @ (0, 0)), *(transform @ (180, 5)))
        southern = min(abs(y) for _, y in cap.exterior.coords)
        # On a sphere with the curvature of the Earth at its poles.
        expected = 2 * math.pi * 6_399_594**2 * (1 - math.sin(math.radians(southern)))
        assert found.areas(polygons(cap)) == pytest.approx([expected], rel=1e-3)
        at_pole = polygons(shapely.box(*(transform @ (90, 0)), *(transform @ (91, 1))))
        assert found.areas(at_pole) > 0
        assert (found.scales(at_pole) > 0).all()

    @pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32614"])
    def test_a_raster_that_is_not_on_earth_is_refused(self, crs: str) -> None:
        with pytest.raises(ValueError, match="is outside the area of the CRS"):
            measure(crs, Affine(1e9, 0, 1e12, 0, 1e9, 1e12))
