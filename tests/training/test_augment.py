from __future__ import annotations

import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import albumentations as A  # noqa: N812
import cv2
import numpy as np
import pytest
from graph import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from roofseg.core.images import UNKNOWN
from roofseg.metrics import count, iou
from roofseg.training import augment
from roofseg.training.augment import PRESETS, Augmenter

SIDE = 32
SEEDS = st.integers(0, 2**63 - 1)


@pytest.fixture(scope="module")
def augmenters() -> dict[str, Augmenter]:
    return {preset: Augmenter(preset) for preset in PRESETS}


@pytest.fixture(scope="module")
def borders() -> dict[str, Augmenter]:
    return {preset: Augmenter(preset, unknown_border=True) for preset in PRESETS}


def noise(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image of noise, and a mask that is the lowest bit of its red."""
    image = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return image, image[:, :, 0] & 1


def transforms(preset: str) -> list[A.BasicTransform]:
    return list(augment._BUILD[preset]())


def test_each_preset_has_the_transforms_of_the_study() -> None:
    light = ["HorizontalFlip", "VerticalFlip", "RandomRotate90"]
    medium = [*light, "Affine", "RandomBrightnessContrast", "HueSaturationValue"]
    heavy = [*medium, "RandomShadow", "RandomGamma", "CLAHE", "ImageCompression"]
    extreme = [*heavy, "ElasticTransform", "CoarseDropout", "Fog"]
    expected = {"none": [], "light": light, "medium": medium, "heavy": heavy, "extreme": extreme}
    found = {preset: [type(each).__name__ for each in transforms(preset)] for preset in PRESETS}
    assert found == expected


def test_medium_has_the_ranges_of_the_study() -> None:
    *_, affine, contrast, colour = transforms("medium")
    assert affine.p == 0.7
    assert affine.translate_percent == {"x": (-0.2, 0.2), "y": (-0.2, 0.2)}
    assert affine.scale == {"x": (0.7, 1.3), "y": (0.7, 1.3)}
    assert affine.rotate == (-0.4, 0.4)  # degrees
    assert affine.border_mode == cv2.BORDER_REFLECT_101
    assert (contrast.p, contrast.brightness_limit, contrast.contrast_limit) == (
        0.5,
        (-0.2, 0.2),
        (-0.3, 0.3),
    )
    assert (colour.p, colour.hue_shift_limit, colour.sat_shift_limit, colour.val_shift_limit) == (
        0.3,
        (-10, 10),
        (-15, 15),
        (-15, 15),
    )


def test_shadows_may_fall_anywhere() -> None:
    # The default is the lower half, meant for street scenes.
    shadow = next(each for each in transforms("heavy") if isinstance(each, A.RandomShadow))
    assert shadow.shadow_roi == (0, 0, 1, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_blurs_or_adds_noise(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a step edge under the transforms that change only light and colour.

    What moves pixels (affine, elastic, holes) interpolates, and moves the mask along with them.
    """
    side, edge = 128, 61  # no multiple of 8: JPEG keeps an edge between two of its blocks anyway
    image = np.empty((side, side, 3), np.uint8)
    image[:, :edge], image[:, edge:] = (70, 80, 90), (150, 160, 140)
    for each in transforms(preset):
        if not isinstance(each, A.ImageOnlyTransform):
            continue
        each.p = 1.0
        monkeypatch.setitem(augment._BUILD, preset, lambda each=each: [each])
        augmenter = Augmenter(preset)
        for seed in range(20):
            grey = augmenter(image, image[:, :, 0], seed)[0].mean(axis=2)
            step = grey[:, edge] - grey[:, edge - 1]
            contrast = grey[:, edge + 3] - grey[:, edge - 4]
            # A blur would spread the step over more pixels; mild JPEG rings by up to a seventh of
            # it. The outline of a shadow may lie on the edge and flatten it in some rows.
            sharpness = step[contrast > 8] / contrast[contrast > 8]
            assert 0.85 < np.median(sharpness) < 1.15, each
            # Flat areas stay smooth, except at the outlines of shadows.
            rough = np.abs(np.diff(grey[:, : edge - 16], 2, axis=1)) > 1
            assert rough.mean() < 0.15, each


def test_fog_whitens_some_parts_more_than_others() -> None:
    image = np.full((SIDE, 2 * SIDE, 3), 100, np.uint8)
    augmenter = A.Compose([augment.Fog(density_range=(0.4, 0.4), p=1.0)], strict=True, seed=1)
    seen = augmenter(image=image)["image"]
    assert seen.dtype == np.uint8
    assert 100 <= seen.min() < seen.max() <= 100 + 0.4 * 155
    assert (augmenter(image=np.full_like(image, 255))["image"] == 255).all()


def test_a_misspelt_argument_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # albumentations itself only warns, and uses the default.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        misspelt = A.HorizontalFlip(probability=1.0)
    monkeypatch.setitem(augment._BUILD, "light", lambda: [misspelt])
    with pytest.raises(ValueError, match="probability"):
        Augmenter("light")


@given(seed=SEEDS)
@pytest.mark.parametrize("preset", ["none", "light"])
def test_image_and_mask_are_turned_alike(
    augmenters: dict[str, Augmenter], preset: str, seed: int
) -> None:
    image, mask = augmenters[preset](*noise(), seed)
    np.testing.assert_array_equal(mask, image[:, :, 0] & 1)


@pytest.mark.parametrize("preset", ["medium", "heavy"])
def test_image_and_mask_are_warped_alike(augmenters: dict[str, Augmenter], preset: str) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 20:44] = 1
    image = np.where(mask[:, :, None] == 1, (230, 60, 60), (30, 60, 60)).astype(np.uint8)
    scores = []
    for seed in range(40):
        seen, truth = augmenters[preset](image, mask, seed)
        # Changes of light and colour keep red areas red; edges may move by half a pixel.
        red = (seen[:, :, 0] > seen[:, :, 1].astype(int) + 30).astype(np.uint8)
        tp, fp, fn, _ = count(red[None], truth[None])
        scores.append(float(iou(tp, fp, fn)[0]))
    assert min(scores) > 0.8
    assert np.mean(scores) > 0.95


@settings(max_examples=25)
@given(seed=SEEDS, building=st.sampled_from([0.0, 0.3, 1.0]))
@pytest.mark.parametrize("preset", PRESETS)
def test_masks_stay_binary(
    augmenters: dict[str, Augmenter], preset: str, seed: int, building: float
) -> None:
    image, _ = noise()
    mask = (np.random.default_rng(1).random((SIDE, SIDE)) < building).astype(np.uint8)
    seen, truth = augmenters[preset](image, mask, seed)
    assert (seen.shape, seen.dtype) == (image.shape, np.uint8)
    assert (truth.shape, truth.dtype) == (mask.shape, np.uint8)
    assert set(np.unique(truth)) <= set(np.unique(mask))


@settings(max_examples=20)
@given(seed=SEEDS, before=st.lists(SEEDS, max_size=3))
@pytest.mark.parametrize("preset", PRESETS)
def test_a_view_depends_on_its_seed_alone(
    augmenters: dict[str, Augmenter], preset: str, seed: int, before: list[int]
) -> None:
    fresh = Augmenter(preset)
    for each in before:
        fresh(*noise(each % 7), each)
    for one, other in zip(fresh(*noise(), seed), augmenters[preset](*noise(), seed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("preset", "least"), [("light", 8), ("medium", 95), ("extreme", 99)])
def test_seeds_differ_in_their_views(
    augmenters: dict[str, Augmenter], preset: str, least: int
) -> None:
    assert len({augmenters[preset](*noise(), seed)[0].tobytes() for seed in range(100)}) >= least


def test_none_changes_nothing(augmenters: dict[str, Augmenter]) -> None:
    for seen, given_ in zip(augmenters["none"](*noise(), 5), noise(), strict=True):
        np.testing.assert_array_equal(seen, given_)


def test_the_flips_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    # With Compose(seed=...) both flips would always fire together.
    monkeypatch.setitem(augment._BUILD, "light", lambda: augment._light()[:2])
    augmenter = Augmenter("light")
    image, mask = noise()
    flipped = {image.tobytes(): "no", image[:, ::-1].tobytes(): "horizontal"}
    flipped |= {image[::-1].tobytes(): "vertical", image[::-1, ::-1].tobytes(): "both"}
    seen = Counter(flipped[augmenter(image, mask, seed)[0].tobytes()] for seed in range(400))
    assert set(seen) == {"no", "horizontal", "vertical", "both"}
    assert min(seen.values()) > 60  # 100 expected


def test_all_symmetries_of_the_square_are_equally_likely(augmenters: dict[str, Augmenter]) -> None:
    image, mask = noise()
    turned = [np.rot90(each, k) for each in (image, image[::-1]) for k in range(4)]
    names = {view.tobytes(): number for number, view in enumerate(turned)}
    assert len(names) == 8
    seen = Counter(
        names[augmenters["light"](image, mask, seed)[0].tobytes()] for seed in range(800)
    )
    assert set(seen) == set(range(8))
    assert min(seen.values()) > 60  # 100 expected


@pytest.mark.whole
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("import roofseg.training.augment", id="augment"),
        # Modules that import albumentations before it; warnings are errors, so this would fail.
        pytest.param(
            "import pytest; assert not pytest.main(['--co', '-n0', '-pno:cacheprovider'])",
            id="tests",
        ),
    ],
)
def test_importing_makes_no_network_call(tmp_path: Path, statement: str) -> None:
    script = (
        "import sys\n"
        "calls = []\n"
        "def refuse(event, args):\n"
        "    if event.startswith(('socket.getaddrinfo', 'socket.connect', 'urllib.')):\n"
        "        calls.append(event)\n"
        "        raise OSError('no network')\n"
        "sys.addaudithook(refuse)\n"
        f"{statement}\n"
        "sys.exit(f'network calls: {calls}' if calls else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@given(seed=SEEDS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_border_that_is_mirrored_may_be_unknown(
    augmenters: dict[str, Augmenter], borders: dict[str, Augmenter], preset: str, seed: int
) -> None:
    image, mask = noise()
    mask[4:9, 10:20] = UNKNOWN
    seen, mirrored = augmenters[preset](image, mask, seed)
    same, truth = borders[preset](image, mask, seed)
    np.testing.assert_array_equal(seen, same)
    assert set(np.unique(truth)) <= {0, 1, UNKNOWN}
    known = truth != UNKNOWN
    np.testing.assert_array_equal(truth[known], mirrored[known])
    if preset in ("none", "light"):
        np.testing.assert_array_equal(truth, mirrored)


def test_what_a_shift_brings_in_is_unknown(borders: dict[str, Augmenter]) -> None:
    image, mask = noise()
    shares = [(borders["medium"](image, mask, seed)[1] == UNKNOWN).mean() for seed in range(60)]
    assert min(shares) == 0  # Affine has probability 0.7
    assert 0.1 < np.mean(shares) < 0.3
