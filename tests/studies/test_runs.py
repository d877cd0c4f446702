"""Subsets of the training tiles have the size asked for, are nested, and depend on the seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofseg.core.errors import UserError
from roofseg.studies.runs import subset

TILES = [f"austin{number}" for number in range(24)]

names = st.sets(st.text(min_size=1, max_size=6), min_size=2, max_size=30)
seeds = st.integers(0, 2**32 - 1)


@given(names, seeds, st.data())
def test_a_smaller_subset_lies_within_a_larger_one(
    tiles: set[str], seed: int, data: st.DataObject
) -> None:
    large = data.draw(st.integers(1, len(tiles)))
    small = data.draw(st.integers(1, large))
    inner, outer = subset(tiles, small, seed), subset(tiles, large, seed)
    assert set(inner) <= set(outer) <= tiles
    assert (len(inner), len(outer)) == (small, large)


@given(names, seeds, st.data())
def test_only_the_seed_and_the_names_decide(
    tiles: set[str], seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(tiles)))
    shuffled = data.draw(st.permutations(sorted(tiles)))
    assert subset(shuffled, count, seed) == subset(sorted(tiles), count, seed)


@given(names, seeds, st.data())
def test_another_tile_replaces_at_most_one(tiles: set[str], seed: int, data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(tiles)))
    count = data.draw(st.integers(1, len(tiles) - 1))
    without, with_it = subset(tiles - {gone}, count, seed), subset(tiles, count, seed)
    assert len(set(without) - set(with_it)) == (gone in with_it)


def test_subsets_are_the_same_on_every_machine() -> None:
    assert subset(TILES, 3, 1) == [
        "austin12",
        "austin13",
        "austin22",
    ]  # by sha256sum


def test_all_tiles_are_drawn_about_equally_often() -> None:
    taken = [tile for seed in range(400) for tile in subset(TILES, 6, seed)]
    assert {tile: 70 < taken.count(tile) < 130 for tile in TILES} == dict.fromkeys(TILES, True)


def test_without_a_count_all_tiles_are_taken() -> None:
    assert subset(reversed(TILES), None, seed=3) == sorted(TILES)


@pytest.mark.parametrize("count", [-1, 0, 25])
def test_a_count_out_of_range_is_an_error(count: int) -> None:
    with pytest.raises(UserError, match=rf"subset of {count} .*; expected 1 to 24"):
        subset(TILES, count, seed=0)
