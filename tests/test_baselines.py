from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg import baselines
from roofseg.core.images import UNKNOWN
from roofseg.patches import Patch

SIDE = 8


def patch(tile: str, roofs: float, *, roof: int = 200, ground: int = 50, seed: int = 0) -> Patch:
    """A patch whose roofs are brighter in red only, with noise of up to 9 levels."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((SIDE, SIDE)) < roofs).astype(np.uint8)
    image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    image[:, :, 0] = np.where(mask, roof, ground) + rng.integers(0, 10, mask.shape)
    return Patch(tile, image, mask)


def test_constant_mask_is_building_everywhere_where_there_is_any() -> None:
    patches = [patch("a", 0.3), patch("b", 0.6, seed=1)]
    best = baselines.best_constant(patches)
    assert best["mask"] == "all building"
    fractions = [patch.mask.mean() for patch in patches]
    assert best["val"]["iou"] == pytest.approx(np.mean(fractions))
    assert best["val"]["recall"] == 1.0


def test_constant_mask_is_empty_where_most_tiles_are() -> None:
    patches = [patch("a", 0.0), patch("b", 0.0), patch("c", 0.4)]
    best = baselines.best_constant(patches)
    assert best["mask"] == "all background"
    assert best["val"]["iou"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("roof", "ground", "direction"), [(200, 50, "above"), (50, 200, "below")])
def test_threshold_finds_the_channel_and_direction_that_separate_roofs(
    roof: int, ground: int, direction: str
) -> None:
    train = [
        patch(name, 0.3, roof=roof, ground=ground, seed=seed) for seed, name in enumerate("ab")
    ]
    val = [patch("v", 0.4, roof=roof, ground=ground, seed=9)]
    found = baselines.baselines(train, val)["colour_threshold"]
    assert (found["channel"], found["direction"]) == ("red", direction)
    assert 50 < found["threshold"] <= 200
    assert found["train_iou"] == 1.0
    assert found["val"]["iou"] == 1.0


def test_threshold_is_fitted_on_train_alone() -> None:
    train = [patch("a", 0.3)]
    val = [patch("v", 0.4, roof=50, ground=200, seed=3)]  # roofs are darker than ground here
    found = baselines.colour_threshold(train, val)
    assert found["train_iou"] == 1.0
    assert found["val"]["iou"] == 0.0


pixels = st.integers(0, 255)


@settings(max_examples=20)
@given(
    hnp.arrays(np.uint8, (2, 3, 4, 3), elements=pixels),
    hnp.arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 1)),
)
def test_threshold_is_the_best_of_all(images: np.ndarray, masks: np.ndarray) -> None:
    patches = [Patch(str(k), images[k], masks[k]) for k in range(2)]
    found = baselines.colour_threshold(patches, patches)["train_iou"]
    values = [baselines.channels(patch.image) for patch in patches]
    best = 0.0
    for name in values[0]:
        channel = np.stack([named[name] for named in values])
        above = channel[:, None] >= np.arange(256)[:, None, None]  # tile, threshold, row, column
        for predicted in (above, ~above):
            shared = (predicted & (masks[:, None] > 0)).sum((2, 3))
            either = (predicted | (masks[:, None] > 0)).sum((2, 3))
            ious = np.where(either == 0, 1.0, shared / np.maximum(either, 1))
            best = max(best, ious.mean(axis=0).max())
    assert found == pytest.approx(best)


def test_channels_are_bytes_and_excess_green_is_high_for_plants() -> None:
    image = np.array([[[0, 255, 0], [255, 0, 255], [90, 90, 90]]], np.uint8)
    values = baselines.channels(image)
    assert all(channel.dtype == np.uint8 and channel.shape == (1, 3) for channel in values.values())
    assert values["excess_green"].tolist() == [[255, 0, 127]]
    assert values["brightness"].tolist() == [[85, 170, 90]]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    np.testing.assert_array_equal(values["saturation"], hsv[:, :, 1])


def test_the_stage_does_not_wait_for_torch() -> None:
    code = "import sys, stages.baselines; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_pixels_have_no_part() -> None:
    train, val = ([patch(f"{seed}", 0.4, seed=seed) for seed in seeds] for seeds in ((1, 2), (3,)))
    results = []
    for colour in (0, 255):
        for each in (*train, *val):
            each.mask[:3] = UNKNOWN
            each.image[:3] = colour
        results.append(baselines.baselines(train, val))
    assert results[0] == results[1]
    assert results[0]["colour_threshold"]["channel"] == "red"
    blank = [Patch("c", val[0].image, np.full_like(val[0].mask, UNKNOWN))]
    assert baselines.best_constant(blank)["val"]["iou"] == 1  # of nothing, and no NaN
