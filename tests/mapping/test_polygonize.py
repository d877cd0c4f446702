from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from rasterio.features import rasterize

from roofseg.mapping.polygonize import Component, Strip, polygonize

Mask = npt.NDArray[np.bool_]
masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


def strips(mask: Mask, heights: list[int]) -> list[Strip]:
    """Cut a mask into strips; the probability of each pixel is its column."""
    places = np.cumsum(heights)
    columns = np.broadcast_to(np.arange(mask.shape[1], dtype=np.float32), mask.shape)
    cut = zip(np.vsplit(mask, places), np.vsplit(columns, places), strict=True)
    return [(np.ascontiguousarray(one), other) for one, other in cut if len(one)]


def by_place(components: list[Component]) -> list[Component]:
    return sorted(components, key=lambda component: shapely.normalize(component.polygon).wkt)


class TestPolygonize:
    @given(mask=masks, heights=st.lists(st.integers(1, 5), max_size=12))
    def test_polygons_are_valid_and_rasterize_back_to_the_mask(
        self, mask: Mask, heights: list[int]
    ) -> None:
        components = list(polygonize(strips(mask, heights)))
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        assert len(components) == count - 1
        back = np.zeros_like(labels)
        for component in components:
            assert component.polygon.geom_type == "Polygon"
            assert component.polygon.is_valid
            burnt = rasterize([component.polygon], out_shape=mask.shape).astype(bool)
            assert not back[burnt].any()
            back[burnt] = 1
            assert len(np.unique(labels[burnt])) == 1
            assert component.polygon.area == component.pixels == burnt.sum()
            assert component.probability == burnt.nonzero()[1].sum()
        assert np.array_equal(back, mask)

    @given(mask=masks, heights=st.lists(st.integers(1, 5), max_size=12))
    def test_components_do_not_depend_on_strips(self, mask: Mask, heights: list[int]) -> None:
        whole = by_place(list(polygonize(strips(mask, []))))
        cut = by_place(list(polygonize(strips(mask, heights))))
        assert len(whole) == len(cut)
        for one, other in zip(whole, cut, strict=True):
            one_outline, other_outline = map(shapely.normalize, (one.polygon, other.polygon))
            assert one_outline.equals_exact(other_outline)  # the same vertices, too
            assert (one.pixels, one.probability) == (other.pixels, other.probability)

    def test_pixels_that_meet_at_a_corner_are_separate(self) -> None:
        mask = np.array([[1, 0], [0, 1]], bool)
        for heights in ([], [1]):
            polygons = [component.polygon for component in polygonize(strips(mask, heights))]
            assert [polygon.bounds for polygon in polygons] == [(0, 0, 1, 1), (1, 1, 2, 2)]

    def test_a_hole_that_meets_the_outside_at_a_corner_is_a_hole(self) -> None:
        mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
        (component,) = polygonize(strips(mask, []))
        assert len(component.polygon.interiors) == 1
        assert component.polygon.is_valid
        assert component.polygon.area == 7

    def test_a_component_is_yielded_as_soon_as_it_ends(self) -> None:
        column = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 1], [1, 0, 1]], bool)
        taken = []

        def rows() -> object:
            for strip in strips(column, [1, 1, 1]):
                taken.append(strip)
                yield strip

        components = polygonize(rows())  # type: ignore[arg-type]
        assert next(components).polygon.bounds == (0, 0, 1, 2)
        assert len(taken) == 3

    def test_a_raster_without_building(self) -> None:
        assert list(polygonize([])) == []
        assert list(polygonize(strips(np.zeros((3, 4), bool), []))) == []
