from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg.core.images import UNKNOWN
from roofseg.cutting.window import MIN_LABELLED, choose_window, window_counts

Mask = npt.NDArray[np.uint8]

masks = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(4, 12), st.integers(4, 12)),
    elements=st.integers(0, 1),
    fill=st.just(0),
)
sizes = st.integers(1, 4)
fractions = st.sampled_from([0.0, 0.05, 0.25, 0.5, 1.0])


def every_window(mask: Mask, size: int) -> dict[tuple[int, int], int]:
    """Count the ones in each window, one by one."""
    return {
        (row, col): int(mask[row : row + size, col : col + size].sum())
        for row in range(mask.shape[0] - size + 1)
        for col in range(mask.shape[1] - size + 1)
    }


def centre_of(mask: Mask, size: int) -> tuple[int, int]:
    return (mask.shape[0] - size) // 2, (mask.shape[1] - size) // 2


def best_windows(mask: Mask, size: int, fraction: float) -> list[tuple[int, int]]:
    """All windows that the rule allows before ties are broken by row and column."""
    counts = every_window(mask, size)
    enough = [place for place, count in counts.items() if count / size**2 >= fraction]
    most = max(counts.values())
    allowed = enough or [place for place, count in counts.items() if count == most]
    centre = np.array(centre_of(mask, size))
    distance = {place: int(((np.array(place) - centre) ** 2).sum()) for place in allowed}
    return sorted(place for place in allowed if distance[place] == min(distance.values()))


@given(masks, sizes)
def test_window_counts_equal_counting_one_by_one(mask: Mask, size: int) -> None:
    rows = list(window_counts(mask, size))
    assert len(rows) == mask.shape[0] - size + 1
    assert np.stack(rows).ravel().tolist() == list(every_window(mask, size).values())


@given(masks, sizes, fractions)
def test_choice_equals_brute_force(mask: Mask, size: int, fraction: float) -> None:
    crop = choose_window(mask, size, fraction)
    assert (crop.row, crop.col) == best_windows(mask, size, fraction)[0]
    assert crop.building_fraction == every_window(mask, size)[crop.row, crop.col] / size**2
    assert (crop.method == "centre") == ((crop.row, crop.col) == centre_of(mask, size))


@given(
    hnp.arrays(np.uint8, st.sampled_from([(8, 8), (8, 12), (10, 6)]), elements=st.integers(0, 1)),
    st.sampled_from([2, 4]),
    fractions,
)
def test_a_unique_choice_follows_a_flipped_tile(mask: Mask, size: int, fraction: float) -> None:
    # Only where the centre window is the same after the flip, hence the even sizes.
    if len(best_windows(mask, size, fraction)) > 1:
        return
    crop = choose_window(mask, size, fraction)
    upside_down = choose_window(mask[::-1], size, fraction)
    mirrored = choose_window(mask[:, ::-1], size, fraction)
    last_row, last_col = mask.shape[0] - size, mask.shape[1] - size
    assert (upside_down.row, upside_down.col) == (last_row - crop.row, crop.col)
    assert (mirrored.row, mirrored.col) == (crop.row, last_col - crop.col)


def test_centre_is_kept_if_it_has_just_enough() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[9, 9:14] = 1  # 5 of the 100 pixels of the centre window
    mask[0:10, 0:10] = 1
    mask[5:9, 5:10] = 0
    mask[9, 5:9] = 0
    crop = choose_window(mask, 10, 0.05)
    assert (crop.row, crop.col, crop.method, crop.building_fraction) == (5, 5, "centre", 0.05)


def test_slides_to_the_nearest_window_and_no_further() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[:, 30:] = 1  # a column of the window is 10 of its 100 pixels
    crop = choose_window(mask, 10, 0.25)
    assert (crop.row, crop.col, crop.method, crop.building_fraction) == (5, 23, "slid", 0.3)


@pytest.mark.parametrize(
    ("near", "far"),
    [((3, 3), (0, 5)), ((3, 3), (5, 0)), ((0, 4), (3, 3)), ((4, 0), (3, 3)), ((0, 2), (3, 0))],
)
def test_near_means_euclidean_distance(near: tuple[int, int], far: tuple[int, int]) -> None:
    mask = np.zeros((13, 13), np.uint8)
    for offset in (near, far):
        mask[6 + offset[0], 6 + offset[1]] = 1
    crop = choose_window(mask, 1, 1.0)
    assert (crop.row - 6, crop.col - 6) == near


def test_ties_go_to_the_smaller_row_then_the_smaller_column() -> None:
    ring = np.ones((9, 9), np.uint8)
    ring[2:7, 2:7] = 0
    crop = choose_window(ring, 1, 1.0)
    assert (crop.row, crop.col) == (1, 4)
    corners = np.zeros((9, 9), np.uint8)
    corners[[0, 0, 8, 8], [0, 8, 0, 8]] = 1
    crop = choose_window(corners, 1, 1.0)
    assert (crop.row, crop.col) == (0, 0)


def test_an_empty_tile_keeps_its_centre() -> None:
    crop = choose_window(np.zeros((7, 9), np.uint8), 4, 0.05)
    assert (crop.row, crop.col, crop.method, crop.building_fraction) == (1, 2, "centre", 0.0)


def test_nudge_overrides_and_row_and_column_zero_count() -> None:
    mask = np.ones((8, 8), np.uint8)
    mask[0, 0] = 0
    crop = choose_window(mask, 4, 0.05, nudge=(0, 0))
    assert (crop.row, crop.col, crop.method, crop.building_fraction) == (0, 0, "nudged", 15 / 16)


@pytest.mark.parametrize("nudge", [(5, 0), (0, 5), (-1, 0)])
def test_a_window_must_lie_within_the_tile(nudge: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not within"):
        choose_window(np.ones((8, 8), np.uint8), 4, 0.05, nudge=nudge)


def test_a_patch_larger_than_the_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="not within"):
        choose_window(np.ones((8, 8), np.uint8), 9, 0.05)


partly_known = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(4, 9), st.integers(4, 9)),
    elements=st.sampled_from([0, 1, UNKNOWN]),
)


@given(partly_known, sizes, fractions)
def test_a_window_should_be_labelled_first_and_then_hold_buildings(
    mask: Mask, size: int, fraction: float
) -> None:
    crop = choose_window(mask, size, fraction)
    known = {place: n / size**2 for place, n in every_window(mask != UNKNOWN, size).items()}
    building = {
        place: n / max(1, known[place] * size**2)
        for place, n in every_window(mask == 1, size).items()
    }
    centre = np.array(centre_of(mask, size))

    def rank(place: tuple[int, int]) -> tuple[float, ...]:
        distance = ((np.array(place) - centre) ** 2).sum()
        return -min(known[place], MIN_LABELLED), -min(building[place], fraction), distance, *place

    place = crop.row, crop.col
    assert place == min(known, key=rank)
    assert crop.labelled == known[place]
    assert crop.building_fraction == pytest.approx(building[place])


def test_a_tile_that_nobody_labelled_keeps_its_centre() -> None:
    crop = choose_window(np.full((8, 8), UNKNOWN, np.uint8), 4, 0.05)
    assert (crop.row, crop.col, crop.labelled, crop.building_fraction) == (2, 2, 0, 0)
