from __future__ import annotations

from roofseg.report.headline import above_floor
from roofseg.results.intervals import Interval


def test_the_floor_may_be_above_or_within_the_interval_of_an_attempt() -> None:
    low, near, sure = Interval(0.3, 0.1, 0.5), Interval(0.4, 0.3, 0.5), Interval(0.6, 0.5, 0.7)
    assert above_floor([("a", sure)], 0.35) == "Every attempt is above it."
    assert above_floor([("a", sure), ("b", near)], 0.35) == (
        "Every attempt is above it. It lies within the interval of b, which on other tiles of this "
        "kind might not be above it."
    )
    assert above_floor([("a", sure), ("c", low)], 0.35) == "Not above it: c."
    # A single tile has no interval.
    alone = Interval(0.4, float("nan"), float("nan"))
    assert above_floor([("a", alone)], 0.35) == "Every attempt is above it."
