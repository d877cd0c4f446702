from __future__ import annotations

import pytest

from roofseg.intake.world import find_world


@pytest.mark.parametrize(
    ("crs", "centre", "width"),
    [
        ("EPSG:4326", 0, 360),
        ("EPSG:4807", 0, 400),  # in grads
        ("EPSG:3857", 0, 40075016.686),
        ("EPSG:3395", 0, 40075016.686),
        ("EPSG:3832", 0, 40075016.686),
        ("EPSG:4087", 0, 40075016.686),
        ("EPSG:6933", 0, 34735060.89),
    ],
)
def test_x_repeats_where_it_is_proportional_to_the_longitude(
    crs: str, centre: float, width: float
) -> None:
    world = find_world(crs)
    assert world is not None
    assert (world.centre, world.width) == (pytest.approx(centre), pytest.approx(width))
    assert not world.is_near_edge(-0.49 * width, 0.49 * width)
    for left in (-0.5, 0.49, 0.5, 1.5):
        assert world.is_near_edge(left * width, (left + 0.01) * width)


@pytest.mark.parametrize(
    "crs", ["EPSG:32660", "EPSG:2193", "EPSG:3031", 'LOCAL_CS["site",UNIT["metre",1]]']
)
def test_other_coordinates_do_not_repeat(crs: str) -> None:
    assert find_world(crs) is None
