from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg import metrics
from roofseg.core.images import UNKNOWN

SHAPE = (3, 4, 5)  # tiles, rows, columns
masks = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 1))
probabilities = hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
pixels = st.integers(0, 10_000)


def test_counts_by_hand() -> None:
    predicted = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    truth = np.array([[[1, 0, 1, 0]], [[0, 0, 0, 0]]])
    counted = np.stack(metrics.count(predicted, truth), axis=1)
    np.testing.assert_array_equal(counted, [[1, 1, 1, 1], [0, 0, 0, 4]])


def test_a_pixel_at_the_threshold_is_building() -> None:
    tp, *_ = metrics.count(np.array([[0.49999, 0.5, 0.6]]), np.ones((1, 3)))
    assert tp.tolist() == [2]


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="differ"):
        metrics.count(np.zeros((1, 4, 4)), np.zeros((1, 1, 4, 4)))


@given(probabilities, masks)
def test_counts_equal_those_of_smp_on_arrays_and_tensors(
    chances: np.ndarray, truth: np.ndarray
) -> None:
    import segmentation_models_pytorch as smp
    import torch

    chances_, truth_ = torch.from_numpy(chances), torch.from_numpy(truth)
    theirs = smp.metrics.get_stats(
        chances_[:, None], truth_[:, None].long(), mode="binary", threshold=0.5
    )
    for array, tensor, expected in zip(
        metrics.count(chances, truth), metrics.count(chances_, truth_), theirs, strict=True
    ):
        np.testing.assert_array_equal(array, expected[:, 0].numpy())
        assert torch.equal(tensor, expected[:, 0])


@given(masks, masks)
def test_counts_cover_each_pixel_once_and_swap_with_the_masks(
    predicted: np.ndarray, truth: np.ndarray
) -> None:
    tp, fp, fn, tn = metrics.count(predicted, truth)
    assert (tp + fp + fn + tn == 20).all()
    np.testing.assert_array_equal(metrics.count(truth, predicted), [tp, fn, fp, tn])
    np.testing.assert_array_equal(metrics.count(1 - predicted, 1 - truth), [tn, fn, fp, tp])


@given(probabilities, masks, st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_where_pixels_lie(
    chances: np.ndarray, truth: np.ndarray, random: object
) -> None:
    expected = np.stack(metrics.count(chances, truth))
    flipped = metrics.count(chances[:, ::-1, ::-1], truth[:, ::-1, ::-1])
    np.testing.assert_array_equal(flipped, expected)
    order = list(range(20))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = metrics.count(chances.reshape(3, 20)[:, order], truth.reshape(3, 20)[:, order])
    np.testing.assert_array_equal(shuffled, expected)


@given(pixels, pixels, pixels)
def test_scores_are_bounded_symmetric_and_tied_to_each_other(tp: int, fp: int, fn: int) -> None:
    overlap, dice = float(metrics.iou(tp, fp, fn)), float(metrics.f1(tp, fp, fn))
    assert 0 <= overlap <= dice <= 1
    assert dice == pytest.approx(2 * overlap / (1 + overlap))
    assert overlap == metrics.iou(tp, fn, fp)
    assert dice == metrics.f1(tp, fn, fp)
    correct, found = float(metrics.precision(tp, fp)), float(metrics.recall(tp, fn))
    assert overlap <= min(correct, found) <= dice <= max(correct, found) or tp == 0
    if tp:
        assert dice == pytest.approx(2 * correct * found / (correct + found))


@given(masks)
def test_only_a_perfect_mask_scores_one(truth: np.ndarray) -> None:
    tiles = ["a", "b", "c"]
    assert set(metrics.pixel_scores(metrics.table(tiles, truth, truth)).values()) == {1.0}
    wrong = truth.copy()
    wrong[1, 0, 0] ^= 1
    scores = metrics.pixel_scores(metrics.table(tiles, wrong, truth))
    assert all(scores[name] < 1 for name in ["iou", "f1", "iou_pooled", "f1_pooled"])


def test_an_empty_prediction_scores_one_on_an_empty_tile_and_zero_on_any_other() -> None:
    truth = np.zeros((2, 2, 2))
    truth[1, 0, 0] = 1
    scored = metrics.table(["empty", "one roof"], np.zeros((2, 2, 2)), truth)
    assert scored.iou.tolist() == [1.0, 0.0]
    assert scored.f1.tolist() == [1.0, 0.0]
    # Nothing was predicted, so precision is 0/0, which counts as 1.
    summary = metrics.pixel_scores(scored)
    assert (summary["precision"], summary["recall"]) == (1.0, 0.0)


def test_summary_is_the_mean_over_tiles_beside_the_pooled_value() -> None:
    counts = pd.DataFrame({"tp": [1, 90], "fp": [1, 5], "fn": [0, 5], "tn": [98, 0]})
    summary = metrics.pixel_scores(counts)
    assert summary == {
        "iou": pytest.approx((1 / 2 + 90 / 100) / 2),
        "f1": pytest.approx((2 / 3 + 180 / 190) / 2),
        "iou_pooled": pytest.approx(91 / 102),
        "f1_pooled": pytest.approx(182 / 193),
        "precision": pytest.approx(91 / 97),
        "recall": pytest.approx(91 / 96),
    }
    assert all(type(score) is float for score in summary.values())


def test_table_keeps_counts_as_integers_beside_their_scores() -> None:
    scored = metrics.table(["a"], np.ones((1, 2, 2)), np.array([[[1, 0], [0, 0]]]))
    assert scored.to_dict("records") == [
        {
            "tile": "a", "tp": 1, "fp": 3, "fn": 0, "tn": 0,
            "iou": 0.25, "f1": 0.4, "precision": 0.25, "recall": 1.0,
        }
    ]  # fmt: skip
    assert all(scored[name].dtype == np.int64 for name in metrics.COUNTS)


@given(probabilities, masks)
def test_curve_is_exact_at_every_threshold(chances: np.ndarray, truth: np.ndarray) -> None:
    parts = [metrics.histogram(chances[k], truth[k]) for k in range(3)]
    curve = metrics.precision_recall(np.sum(parts, axis=0))
    assert list(curve.columns) == ["threshold", "precision", "recall"]
    wide = chances.astype(np.float64)  # a float32 would be compared with a rounded threshold
    for row in curve.itertuples():
        tp, fp, fn, _ = np.sum(metrics.count(wide >= row.threshold, truth), axis=1)
        assert row.precision == (tp / (tp + fp) if tp + fp else 1)
        assert row.recall == (tp / (tp + fn) if tp + fn else 1)
    assert (curve.recall.diff().dropna() <= 0).all()
    half = metrics.pixel_scores(metrics.table(["a", "b", "c"], chances, truth))
    assert curve.precision[50] == half["precision"]
    assert curve.recall[50] == half["recall"]


partly_known = hnp.arrays(np.uint8, (2, 5, 6), elements=st.sampled_from([0, 1, UNKNOWN]))


@given(partly_known, st.integers(0, 99))
def test_unknown_pixels_are_in_no_count(truth: np.ndarray, seed: int) -> None:
    import torch

    rng = np.random.default_rng(seed)
    chances = rng.random(truth.shape).astype(np.float32)
    others = np.where(truth == UNKNOWN, rng.random(truth.shape).astype(np.float32), chances)
    for one, known in zip(np.transpose(metrics.count(chances, truth)), truth, strict=True):
        assert one.sum() == (known != UNKNOWN).sum()
    np.testing.assert_array_equal(metrics.count(chances, truth), metrics.count(others, truth))
    tensors = metrics.count(torch.from_numpy(chances), torch.from_numpy(truth))
    np.testing.assert_array_equal(torch.stack(tensors), metrics.count(chances, truth))
    pixels = metrics.histogram(chances, truth)
    np.testing.assert_array_equal(pixels, metrics.histogram(others, truth))
    assert pixels.sum() == (truth != UNKNOWN).sum()
    assert not metrics.precision_recall(pixels).isna().any(axis=None)
