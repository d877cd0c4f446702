from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg import metrics
from roofseg.core.images import UNKNOWN
from roofseg.evaluation.boundary import boundary_iou, in_pixels, inner_boundary

masks = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)
)
distances = st.integers(1, 6)


def square(side: int, start: int, stop: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[start:stop, start:stop] = 1
    return mask


def by_definition(mask: np.ndarray, distance: int) -> np.ndarray:
    """Check each building pixel for background within ``distance`` rows and columns."""
    found = np.zeros(mask.shape, bool)
    padded = np.pad(mask, distance)
    for row, col in np.argwhere(mask):
        around = padded[row : row + 2 * distance + 1, col : col + 2 * distance + 1]
        found[row, col] = not around.all()
    return found


def test_boundary_of_a_square_is_its_frame() -> None:
    expected = square(12, 2, 10) - square(12, 4, 8)
    np.testing.assert_array_equal(inner_boundary(square(12, 2, 10), 2), expected)


def test_the_border_of_the_picture_is_an_edge() -> None:
    expected = 1 - square(8, 3, 5)
    np.testing.assert_array_equal(inner_boundary(np.ones((8, 8)), 3), expected)


def test_a_building_thinner_than_two_distances_is_all_boundary() -> None:
    mask = square(12, 3, 9)
    np.testing.assert_array_equal(inner_boundary(mask, 3), mask)


@given(masks, distances)
def test_boundary_follows_its_definition(mask: np.ndarray, distance: int) -> None:
    np.testing.assert_array_equal(inner_boundary(mask, distance), by_definition(mask, distance))


@given(masks, distances)
def test_boundary_equals_that_of_the_authors_code(mask: np.ndarray, distance: int) -> None:
    """Cheng et al. pad the mask by a pixel of background, and erode it step by step."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    np.testing.assert_array_equal(inner_boundary(mask, distance), mask - inside)


def test_boundary_iou_by_hand() -> None:
    # A roof of 8 x 8 px, and the same roof one column to the right. Each has a frame of 28 px. The
    # frames share seven pixels of the upper row and seven of the lower row, but no column.
    truth, predicted = square(12, 2, 10), np.roll(square(12, 2, 10), 1, axis=1)
    assert boundary_iou(predicted, truth, 1) == 14 / (28 + 28 - 14)


def test_shifted_edges_lower_boundary_iou_more_than_mask_iou() -> None:
    # The predicted edge is 1 px off all around a large roof.
    truth, predicted = square(200, 20, 180), square(200, 21, 179)
    tp, fp, fn, _ = metrics.count(predicted[None], truth[None])
    assert metrics.iou(tp, fp, fn)[0] > 0.97
    # Each boundary is three rings of pixels wide. Two rings are shared, of four in total.
    assert boundary_iou(predicted, truth) == pytest.approx(0.5, abs=0.01)


@given(masks, masks.map(np.ravel), distances)
def test_boundary_iou_is_symmetric_bounded_and_one_for_equal_masks(
    truth: np.ndarray, other: np.ndarray, distance: int
) -> None:
    predicted = np.resize(other, truth.shape)
    score = boundary_iou(predicted, truth, distance)
    assert 0 <= score <= 1
    assert score == boundary_iou(truth, predicted, distance)
    assert boundary_iou(truth, truth, distance) == 1
    # If all pixels of both masks are boundary, boundary IoU equals mask IoU.
    tp, fp, fn, _ = metrics.count(predicted[None], truth[None])
    assert boundary_iou(predicted, truth, 12) == metrics.iou(tp, fp, fn)[0]


def test_empty_tiles_score_as_in_mask_iou() -> None:
    empty = np.zeros((8, 8), np.uint8)
    assert boundary_iou(empty, empty) == 1
    assert boundary_iou(square(8, 2, 4), empty) == 0


@pytest.mark.parametrize(("gsd", "pixels"), [(0.3, 3), (0.075, 13), (1.0, 1), (5.0, 1)])
def test_metres_become_whole_pixels(gsd: float, pixels: int) -> None:
    assert in_pixels(1.0, gsd) == pixels


def test_where_a_truth_ends_in_unknown_pixels_there_is_no_edge() -> None:
    truth = np.zeros((30, 40), np.uint8)
    truth[5:25, 5:20] = 1
    predicted = truth.copy()
    truth[:, 20:] = UNKNOWN
    assert boundary_iou(predicted, truth) == 1
    predicted[5:25, 15:40] = 1  # it goes on, as the building may
    assert boundary_iou(predicted, truth) == 1
    predicted[5:25, 10:20] = 0  # an edge that is too far from them to be theirs
    assert boundary_iou(predicted, truth) < 1
