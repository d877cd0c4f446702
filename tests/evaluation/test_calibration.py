from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg.evaluation.calibration import BINS, bin_pixels, expected_calibration_error, reliability

probabilities = hnp.arrays(np.float32, (3, 20), elements=st.floats(0, 1, width=32))
masks = hnp.arrays(np.uint8, (3, 20), elements=st.integers(0, 1))


def test_table_and_error_by_hand() -> None:
    chances = np.array([[0.0, 0.06], [0.5, 0.98]])
    truth = np.array([[0, 1], [1, 1]])
    pixels = bin_pixels(chances, truth)
    table = reliability(pixels)
    assert list(table.columns) == ["low", "high", "pixels", "probability", "building"]
    assert len(table) == BINS
    filled = table[table.pixels > 0]
    assert filled.index.tolist() == [0, 7, 14]
    assert filled.pixels.tolist() == [2, 1, 1]
    assert filled.probability.tolist() == pytest.approx([0.03, 0.5, 0.98])
    assert filled.building.tolist() == [0.5, 1, 1]
    assert table[table.pixels == 0][["probability", "building"]].isna().all(axis=None)
    error = (2 * (0.5 - 0.03) + (1 - 0.5) + (1 - 0.98)) / 4
    assert expected_calibration_error(pixels) == pytest.approx(error)


def test_bins_have_equal_widths_and_include_their_upper_ends() -> None:
    table = reliability(bin_pixels(np.zeros(1), np.zeros(1)))
    np.testing.assert_allclose(table.high - table.low, 1 / 15)
    np.testing.assert_array_equal(table.low[1:], table.high[:-1])
    assert (table.low[0], table.high[14]) == (0, 1)
    ends = bin_pixels(np.array([0, *table.high]), np.zeros(16))
    assert ends[0].tolist() == [2, *[1] * 14]


def test_a_calibrated_model_has_no_error() -> None:
    rng = np.random.default_rng(0)
    chances = rng.random(400_000)
    truth = rng.random(400_000) < chances
    assert expected_calibration_error(bin_pixels(chances, truth)) < 0.01
    # An overconfident model: its probabilities are twice as far from 0.5 as they should be.
    sure = np.clip(2 * chances - 0.5, 0, 1)
    assert expected_calibration_error(bin_pixels(sure, truth)) == pytest.approx(0.125, abs=0.01)


@given(probabilities, masks)
def test_bins_of_tiles_add_up_and_hold_every_pixel(chances: np.ndarray, truth: np.ndarray) -> None:
    whole = bin_pixels(chances, truth)
    parts = sum(bin_pixels(*pair) for pair in zip(chances, truth, strict=True))
    np.testing.assert_allclose(whole, parts)
    count, sums, building = whole
    assert count.sum() == chances.size
    assert building.sum() == truth.sum()
    table = reliability(whole)[count > 0]
    assert (table.probability >= table.low - 1e-9).all()
    assert (table.probability <= table.high + 1e-9).all()
    assert 0 <= expected_calibration_error(whole) <= 1
    assert sums.sum() == pytest.approx(float(chances.astype(np.float64).sum()))


def test_error_equals_that_of_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    rng = np.random.default_rng(3)
    chances = rng.random((40, 50)).astype(np.float32) ** 2
    truth = (rng.random((40, 50)) < 0.3).astype(np.int64)
    expected = binary_calibration_error(
        torch.from_numpy(chances).ravel(), torch.from_numpy(truth).ravel(), n_bins=BINS, norm="l1"
    )
    found = expected_calibration_error(bin_pixels(chances, truth))
    assert found == pytest.approx(float(expected), abs=1e-6)
