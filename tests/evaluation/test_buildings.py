from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg.core.images import UNKNOWN
from roofseg.evaluation.buildings import CLASSES, Matches, by_size, match_buildings
from roofseg.metrics import building_f1

masks = hnp.arrays(np.uint8, (6, 9), elements=st.integers(0, 1))
NAN = math.nan


def drawn(picture: str) -> npt.NDArray[np.uint8]:
    """Make a mask from lines of text: # is building, anything else background."""
    return np.array([[cell == "#" for cell in line] for line in picture.split()], np.uint8)


def matches(areas: list[int], claimed: list[int]) -> Matches:
    """Every second building is found, half of the pixels of each are predicted, and only the first
    claim is confirmed."""
    return Matches(
        areas=np.array(areas, np.int64),
        found=np.arange(len(areas)) % 2 == 1,
        recall=np.full(len(areas), 0.5),
        claimed_areas=np.array(claimed, np.int64),
        confirmed=np.arange(len(claimed)) == 0,
    )


def test_matches_by_hand() -> None:
    truth = drawn("""
        ####..##
        ####..##
        ........
        ##....##
        ##....##
    """)
    predicted = drawn("""
        ###...##
        ###.#...
        ........
        .......#
        ##....##
    """)
    found = match_buildings(predicted, truth)
    # The IoUs are 6/8, 2/4 (not above 0.5), 2/4 and 3/4. One claim has no building.
    assert found.areas.tolist() == [8, 4, 4, 4]
    assert found.found.tolist() == [True, False, False, True]
    assert found.recall.tolist() == [0.75, 0.5, 0.5, 0.75]
    assert sorted(found.claimed_areas) == [1, 2, 2, 3, 6]
    assert found.claimed_areas[found.confirmed].tolist() == [6, 3]


def test_pixels_that_share_a_side_join_and_those_that_share_a_corner_do_not() -> None:
    assert match_buildings(drawn("#. .#"), drawn("#. .#")).areas.tolist() == [1, 1]
    assert match_buildings(drawn("## .#"), drawn("## .#")).areas.tolist() == [3]


def test_a_row_of_houses_that_is_predicted_as_one_is_not_found() -> None:
    found = match_buildings(drawn("#####"), drawn("##.##"))
    assert not found.found.any()
    assert not found.confirmed.any()
    # All pixels of both buildings were predicted.
    assert found.recall.tolist() == [1, 1]


@pytest.mark.parametrize(("predicted", "truth"), [("...", "..."), ("##.", "..."), ("...", "#.#")])
def test_nothing_matches_nothing(predicted: str, truth: str) -> None:
    found = match_buildings(drawn(predicted), drawn(truth))
    assert not found.found.any()
    assert not found.confirmed.any()
    assert not found.recall.any()


def iou_of_all(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The IoU of each building with each claim, (n, m), computed one by one."""
    parts = []
    for mask in (truth, predicted):
        count, labels = cv2.connectedComponents(mask, connectivity=4)
        parts.append([labels == number for number in range(1, count)])
    there, claims = parts
    table = [[(a & b).sum() / (a | b).sum() for b in claims] for a in there]
    return np.array(table).reshape(len(there), len(claims))


@given(masks, masks)
def test_matches_are_the_pairs_with_iou_above_a_half_at_most_one_per_building(
    predicted: np.ndarray, truth: np.ndarray
) -> None:
    pairs = iou_of_all(predicted, truth) > 0.5
    assert (pairs.sum(axis=0) <= 1).all()  # Kirillov et al. 2019
    found = match_buildings(predicted, truth)
    np.testing.assert_array_equal(found.found, pairs.any(axis=1))
    np.testing.assert_array_equal(found.confirmed, pairs.any(axis=0))
    assert found.found.sum() == found.confirmed.sum()


@given(masks, masks)
def test_areas_and_recalls_add_up_to_the_pixels(predicted: np.ndarray, truth: np.ndarray) -> None:
    found = match_buildings(predicted, truth)
    assert found.areas.sum() == truth.sum()
    assert found.claimed_areas.sum() == predicted.sum()
    covered = (found.recall * found.areas).sum()
    assert covered == pytest.approx((predicted & truth).sum())
    assert ((found.recall >= 0) & (found.recall <= 1)).all()
    swapped = match_buildings(truth, predicted)
    np.testing.assert_array_equal(swapped.confirmed, found.found)


@given(masks)
def test_a_perfect_mask_finds_every_building(truth: np.ndarray) -> None:
    found = match_buildings(truth, truth)
    assert found.found.all()
    assert found.confirmed.all()
    assert (found.recall == 1).all()


def test_f1_of_buildings() -> None:
    assert building_f1(4, 2, 5) == pytest.approx(4 / 9)
    # 0/0 scores 1, as for pixels: there is nothing to find, and nothing was found.
    assert building_f1([0, 0, 3], [0, 0, 0], [0, 2, 0]).tolist() == [1, 0, 0]


def test_sizes_by_hand() -> None:
    # At 0.5 m a pixel is a quarter of a square metre.
    table = by_size([matches([199, 200, 1600], [8, 1600]), matches([], [4, 300])], [0.5, 0.5])
    assert list(table.columns) == [
        "unit", "size", "area_from", "area_to", "buildings", "found", "pixel_recall", "claimed",
        "false_claims",
    ]  # fmt: skip
    assert set(table.unit) == {"m2"}
    assert list(table["size"]) == ["0-50", "50-100", "100-200", "200-400", "400+"]
    assert table.area_from.tolist() == [0, 50, 100, 200, 400]
    assert table.area_to[:-1].tolist() == [50, 100, 200, 400]
    assert table.area_to.isna().tolist() == [False] * 4 + [True]
    assert table.buildings.tolist() == [1, 1, 0, 0, 1]
    assert table.found.tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_array_equal(table.pixel_recall, [0.5, 0.5, NAN, NAN, 0.5])
    assert table.claimed.tolist() == [2, 1, 0, 0, 1]
    assert table.false_claims.tolist() == [0, 1, 0, 0, 1]


def test_tiles_without_gsd_are_sorted_by_pixels() -> None:
    tiles = [matches([100, 1024, 10_000], [9215, 9216, 9216]), matches([60], [])]
    both = by_size(tiles, [NAN, 1.0])
    assert list(both.unit) == ["m2"] * 5 + ["px"] * 3
    px = both[both.unit == "px"]
    assert list(px["size"]) == ["0-1024", "1024-9216", "9216+"]
    assert px.buildings.tolist() == [1, 1, 1]
    assert px.false_claims.tolist() == [0, 0, 2]
    assert both.buildings[both.unit == "m2"].tolist() == [0, 1, 0, 0, 0]
    assert set(by_size(tiles, [NAN, NAN]).unit) == {"px"}


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 20_000), max_size=5),
            st.lists(st.integers(1, 20_000), max_size=5),
            st.sampled_from([0.3, 1.0, NAN]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_every_building_and_every_claim_has_one_class(
    tiles: list[tuple[list[int], list[int], float]],
) -> None:
    found = [matches(areas, claimed) for areas, claimed, _ in tiles]
    table = by_size(found, [gsd for *_, gsd in tiles])
    assert table.buildings.sum() == sum(len(match.areas) for match in found)
    assert table.found.sum() == sum(match.found.sum() for match in found)
    assert table.claimed.sum() == sum(len(match.claimed_areas) for match in found)
    assert table.false_claims.sum() == sum((~match.confirmed).sum() for match in found)
    assert {len(CLASSES[unit]) for unit in table.unit} == set(table.groupby("unit").size())


class TestUnknown:
    """Truths in which ? is unknown."""

    def matched(self, predicted: str, truth: str) -> Matches:
        lines = truth.split()
        unknown = np.array([[cell == "?" for cell in line] for line in lines])
        return match_buildings(drawn(predicted), np.where(unknown, UNKNOWN, drawn(truth)))

    def test_buildings_that_touch_it_are_neither_hit_nor_miss(self) -> None:
        predicted = "####.... ####.... ........ .##...##"
        truth = "####?... ####?..# .....?.. .##...##"
        found = self.matched(predicted, truth)
        # The first touches ? and so does its claim; # beside ? only by a corner counts.
        assert found.areas.tolist() == [1, 2, 2]
        assert found.found.tolist() == [False, True, True]
        assert found.claimed_areas.tolist() == [2, 2]
        assert found.confirmed.all()

    def test_a_claim_on_a_building_that_does_not_count_is_no_false_one(self) -> None:
        found = self.matched(".##.....# .##......", "####???.. ####???..")
        assert found.areas.tolist() == []
        assert found.claimed_areas.tolist() == [1]  # apart from the building

    def test_a_claim_that_reaches_it_may_find_a_building_that_does_not(self) -> None:
        found = self.matched("#####. #####.", "####.? ####.?")
        assert (found.found.tolist(), found.confirmed.tolist()) == ([True], [True])
        # Those that find none may go on in it as true ones: they are not false.
        assert self.matched("..##.# ..##.#", "##..?. ##..?.").claimed_areas.tolist() == []

    def test_without_it_nothing_changes(self) -> None:
        for seed in range(20):
            predicted, truth = np.random.default_rng(seed).integers(0, 2, (2, 9, 9), np.uint8)
            found = match_buildings(predicted, truth)
            count, _ = cv2.connectedComponents(truth, connectivity=4)
            claims, _ = cv2.connectedComponents(predicted, connectivity=4)
            assert (len(found.areas), len(found.claimed_areas)) == (count - 1, claims - 1)
