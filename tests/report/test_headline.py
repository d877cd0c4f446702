from __future__ import annotations

from small_entries import board, entry

from roofseg.report.differences import against_leader
from roofseg.report.headline import above_floor, result
from roofseg.results.intervals import Interval

SIX = [0.80, 0.70, 0.75, 0.65, 0.85, 0.78]


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
    assert above_floor([("a", alone)], 0.35) == (
        "Every attempt is above it. There is no interval of a to tell whether other tiles agree."
    )
    assert above_floor([("a", alone)], 0.5) == "Not above it: a."


def test_a_single_tile_has_no_intervals_and_no_verdicts() -> None:
    single = board(entry("best", {"val": [0.9]}), entry("worse", {"val": [0.5]}))
    [prose, table, *_] = result(single).blocks
    assert "There is a single tile of val: no intervals and no verdicts there." in prose.text
    assert "tie" not in prose.text
    assert "Brackets" not in table.caption
    assert "**tie**" not in table.caption
    assert [str(row[2]) for row in table.rows] == ["leader", ""]
    [table, *_] = against_leader(single).blocks
    assert "no intervals and no verdicts" in table.caption
    assert [str(cell) for cell in table.rows[0][2:]] == ["\N{EN DASH}", ""]


def test_six_tiles_have_both() -> None:
    [prose, table, *_] = result(board(*(entry(name, {"val": SIX}) for name in "ab"))).blocks
    assert "single" not in prose.text
    assert "Brackets" in table.caption
    assert "at a level of about 5 % for all pairs" in table.caption
