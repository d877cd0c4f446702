from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from identity import P, picture

from roofseg.core.errors import UserError
from roofseg.inference.predictor import D4, Images, Predictor, Probabilities
from roofseg.mapping.ensemble import Ensemble

IMAGES = np.stack([picture(P, P, seed) for seed in range(2)])


class Band:
    """A predictor whose probability is one band of the image."""

    def __init__(self, band: int, window: int = P, gsd: tuple[float, ...] = (0.3,)) -> None:
        self.band, self.window, self.gsd = band, window, gsd
        self.provenance = {
            "ROOFSEG_ATTEMPT": f"band_{band}",
            "ROOFSEG_WEIGHTS_SHA256": str(9 - band) * 64,
        }

    def __call__(self, images: Images) -> Probabilities:
        return images[..., self.band] / np.float32(255)


def ensemble(*models: Predictor, disagreement: bool = False) -> Ensemble:
    return Ensemble(
        [(Path(f"models/{number}"), model) for number, model in enumerate(models)],
        disagreement=disagreement,
    )


def test_mean_and_standard_deviation_of_the_probabilities() -> None:
    bands = IMAGES / 255
    mean = ensemble(Band(0), Band(1), Band(2))(IMAGES)
    assert (mean.shape, mean.dtype) == ((2, P, P), np.float32)
    np.testing.assert_allclose(mean, bands.mean(axis=-1), atol=1e-7)
    both = ensemble(Band(0), Band(1), Band(2), disagreement=True)(IMAGES)
    assert (both.shape, both.dtype) == ((2, 2, P, P), np.float32)
    np.testing.assert_array_equal(both[:, 0], mean)
    np.testing.assert_allclose(both[:, 1], bands.std(axis=-1), atol=1e-7)


def test_the_order_of_the_models_changes_nothing() -> None:
    one, other = ensemble(Band(0), Band(1), Band(2)), ensemble(Band(2), Band(0), Band(1))
    assert one.provenance == other.provenance
    assert one.provenance["ROOFSEG_ATTEMPT"] == "band_2, band_1, band_0"
    np.testing.assert_array_equal(one(IMAGES), other(IMAGES))


def test_models_that_agree_have_no_disagreement() -> None:
    same = Band(1)
    same.provenance = {**same.provenance, "ROOFSEG_WEIGHTS_SHA256": "a" * 64}
    both = ensemble(Band(1), same, disagreement=True)(IMAGES)
    np.testing.assert_array_equal(both[:, 0], Band(1)(IMAGES))
    assert not both[:, 1].any()


def test_symmetries_are_averaged_with_their_disagreement() -> None:
    """Bands have no direction, so turning the image changes neither."""
    models = ensemble(Band(0), Band(2), disagreement=True)
    np.testing.assert_allclose(D4(models)(IMAGES), models(IMAGES), atol=1e-7)


def test_models_of_tiles_of_nearly_one_gsd_are_of_one_scale() -> None:
    folds = ensemble(Band(0, gsd=(0.29, 0.3)), Band(1, gsd=(0.3, 0.31)), Band(2, gsd=(0.3,)))
    assert folds.gsd == (0.29, 0.3, 0.31)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Band(0), r"--model models/1: has the same weights as models/0, which would count twice\."),
        (
            Band(1, window=64),
            r"--model models/1: was trained on patches of 64 px, but models/0 on 3",
        ),
        (Band(1, gsd=(0.5,)), r"--model models/1: was trained at 0\.5 m, but models/0 at 0\.3 m\."),
        (Band(1, gsd=(0.3, 0.4)), r"was trained at 0\.3 m to 0\.4 m, but models/0 at 0\.3 m\."),
        (Band(1, gsd=()), r"was trained at an unknown GSD, but models/0 at 0\.3 m\."),
    ],
    ids=["same", "window", "gsd", "some of another gsd", "unknown gsd"],
)
def test_models_that_do_not_go_together(other: Predictor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensemble(Band(0), other)
