from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg import metrics
from roofseg.core.images import UNKNOWN
from roofseg.evaluation import boundary, buildings, calibration
from roofseg.evaluation.assessment import Assessment, assess
from roofseg.patches import Patch
from roofseg.results.intervals import STATISTIC_COLUMNS, STATISTICS, known_scores

SIDE = 40
NAN = math.nan


def roof(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


TRUTH = np.stack([roof(5, 5, 10) | roof(25, 25, 4), roof(0, 0, 0), roof(2, 2, 30)])
# Tile 1: the first roof one column off, a speck in place of the second. Tile 2: empty. Tile 3: the
# roof one pixel too small on each side.
MASKS = np.stack([roof(5, 6, 10) | roof(20, 2, 1), roof(0, 0, 0), roof(3, 3, 28)])
CHANCES = np.where(MASKS == 1, 0.9, 0.1).astype(np.float32)


def patches(truth: np.ndarray, gsd: list[float]) -> list[Patch]:
    """Patches with these masks; no pixel of an image is read."""
    names = ["a", "007", "NA"][: len(truth)]
    return [
        Patch(name, mask[..., None], mask, metres)
        for name, mask, metres in zip(names, truth, gsd, strict=True)
    ]


def assessed(gsd: list[float]) -> Assessment:
    return assess(patches(TRUTH, gsd), CHANCES)


def test_the_table_extends_the_table_of_metrics() -> None:
    table = assessed([0.5, 0.25, 0.5]).table
    expected = metrics.table(["a", "007", "NA"], CHANCES, TRUTH)
    pd.testing.assert_frame_equal(table[expected.columns], expected)
    assert list(table.columns[len(expected.columns) :]) == [
        "boundary_iou", "boundary_iou_m", "buildings", "found", "claimed", "building_f1", "ece",
    ]  # fmt: skip
    assert table.precision.tolist() == pytest.approx([90 / 101, 1, 1])
    assert table.recall.tolist() == pytest.approx([90 / 116, 1, 784 / 900])
    assert table.buildings.tolist() == [2, 0, 1]
    assert table.found.tolist() == [1, 0, 1]
    assert table.claimed.tolist() == [2, 0, 1]
    assert table.building_f1.tolist() == [0.5, 1, 1]
    # Tile 1: 90 of the 101 pixels at 0.9 are building, and 26 of the 1499 at 0.1. Tile 2: none is.
    first = (abs(0.9 * 101 - 90) + abs(0.1 * 1499 - 26)) / 1600
    assert table.ece.tolist()[:2] == pytest.approx([first, 0.1], abs=1e-6)


def test_boundary_iou_is_measured_at_three_pixels_and_at_one_metre() -> None:
    table = assessed([0.5, NAN, 0.25]).table
    pairs = list(zip(MASKS, TRUTH, strict=True))
    assert table.boundary_iou.tolist() == [boundary.boundary_iou(*pair, 3) for pair in pairs]
    assert table.boundary_iou_m[0] == boundary.boundary_iou(*pairs[0], 2)
    assert math.isnan(table.boundary_iou_m[1])
    assert table.boundary_iou_m[2] == boundary.boundary_iou(*pairs[2], 4)


def test_scores_are_means_over_tiles_or_pooled() -> None:
    found = assessed([0.5, 0.5, 0.5])
    table, scores = found.table, found.scores
    assert list(scores) == [
        "iou", "f1", "iou_pooled", "f1_pooled", "precision", "recall", "boundary_iou",
        "boundary_iou_m", "building_f1", "building_f1_pooled", "ece",
    ]  # fmt: skip
    assert metrics.pixel_scores(table).items() <= scores.items()
    for name in ("boundary_iou", "boundary_iou_m", "building_f1"):
        assert scores[name] == pytest.approx(table[name].mean())
    assert scores["building_f1_pooled"] == pytest.approx(2 * 2 / (3 + 3))
    # 874 of the 885 pixels at 0.9 are building, and 142 of the 3915 at 0.1.
    assert scores["ece"] == pytest.approx(
        (abs(0.9 * 885 - 874) + abs(0.1 * 3915 - 142)) / 4800, abs=1e-6
    )
    assert all(type(score) is float for score in scores.values())


def test_boundary_iou_in_metres_needs_the_gsd_of_all_tiles() -> None:
    assert "boundary_iou_m" not in assessed([0.5, NAN, 0.5]).scores


def test_tables_without_building_columns_have_scores_of_pixels() -> None:
    table = metrics.table(["a", "b", "c"], CHANCES, TRUTH)
    assert known_scores(table) == metrics.pixel_scores(table)


def test_sizes_and_reliability_cover_all_tiles() -> None:
    found = assessed([0.5, 0.5, 0.5])
    matches = [buildings.match_buildings(*pair) for pair in zip(MASKS, TRUTH, strict=True)]
    pd.testing.assert_frame_equal(found.sizes, buildings.by_size(matches, [0.5] * 3))
    assert found.sizes.buildings.tolist() == [2, 0, 0, 1, 0]
    expected = calibration.reliability(calibration.bin_pixels(CHANCES, TRUTH))
    pd.testing.assert_frame_equal(found.reliability, expected)


chances = hnp.arrays(np.float32, (2, 8, 9), elements=st.floats(0, 1, width=32))
truths = hnp.arrays(np.uint8, (2, 8, 9), elements=st.integers(0, 1))


@given(chances, truths)
def test_statistics_take_the_columns_of_the_table(chance: np.ndarray, truth: np.ndarray) -> None:
    found = assess(patches(truth, [0.3, 0.5]), chance)
    for name, statistic in STATISTICS.items():
        rows = found.table[STATISTIC_COLUMNS[name]].to_numpy(np.float64)
        assert float(statistic(rows)) == pytest.approx(found.scores[name], abs=1e-12)
        assert 0 <= found.scores[name] <= 1
    assert found.scores.keys() == {*STATISTICS, "ece"}


@given(truths)
def test_a_perfect_mask_scores_one_in_everything(truth: np.ndarray) -> None:
    scores = assess(patches(truth, [0.3, 0.3]), truth.astype(np.float32)).scores
    assert scores.pop("ece") == 0
    assert set(scores.values()) == {1.0}


class TestUnknown:
    """Truths some of whose pixels nobody has labelled."""

    def measured(self, chances: np.ndarray, truth: np.ndarray) -> Assessment:
        return assess(patches(truth, [0.5] * len(truth)), chances)

    def assert_same(self, one: Assessment, other: Assessment) -> None:
        for name in ("table", "sizes", "reliability", "curve"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
        assert one.scores == other.scores

    @given(
        st.integers(0, 999),
        hnp.arrays(bool, (3, 8, 8), elements=st.booleans()),
        st.sampled_from([0.0, 1.0]),
    )
    def test_no_score_depends_on_predictions_there(
        self, seed: int, coarse: np.ndarray, value: float
    ) -> None:
        unknown = coarse.repeat(5, axis=1).repeat(5, axis=2)
        truth = np.where(unknown, UNKNOWN, TRUTH).astype(np.uint8)
        noise = np.random.default_rng(seed).random(TRUTH.shape).astype(np.float32)
        chances = np.where(MASKS == 1, 0.5 + noise / 2, noise / 2).astype(np.float32)
        others = np.where(unknown, value, chances).astype(np.float32)
        self.assert_same(self.measured(chances, truth), self.measured(others, truth))

    def test_a_flip_changes_no_score(self) -> None:
        truth = TRUTH.copy()
        truth[:, :, 20:27] = UNKNOWN
        found = self.measured(CHANCES, truth)
        flipped = self.measured(CHANCES[:, :, ::-1], truth[:, :, ::-1])
        pd.testing.assert_frame_equal(found.table, flipped.table)
        assert found.scores == pytest.approx(flipped.scores)

    def test_a_tile_without_known_pixels_gives_numbers(self) -> None:
        found = self.measured(CHANCES, np.full_like(TRUTH, UNKNOWN))
        assert not found.table.isna().any(axis=None)
        assert (found.table[[*metrics.COUNTS, "buildings", "claimed", "ece"]] == 0).all(axis=None)
        assert not any(math.isnan(score) for score in found.scores.values())
        assert not found.curve.isna().any(axis=None)
