"""The augmentation presets: albumentations pipelines for 8-bit RGB aerial patches.

No preset blurs or adds noise: some roofs are a few pixels wide, and their edges are the signal.
"""

from __future__ import annotations

import os
import random
from typing import Any, get_args

# Without this, the import of albumentations asks a server for the newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: N812
import cv2
import numpy as np

from roofseg.core.images import UNKNOWN
from roofseg.recipe.params import Augmentation

PRESETS: tuple[str, ...] = get_args(Augmentation)


class Fog(A.ImageOnlyTransform):
    """Thin cloud: blends (H, W, 3) uint8 towards white, by a density that varies slowly in space.

    It replaces albumentations' RandomFog, whose Gaussian blur softens the edges of roofs.

    Args:
        density_range: range within [0, 1] from which the largest possible share of white is drawn
        p: probability
    """

    CELLS = 4  # cells per side of the grid of random densities, each a quarter of the patch wide

    class InitSchema(A.ImageOnlyTransform.InitSchema):  # checked by Compose(strict=True)
        density_range: tuple[float, float]

    def __init__(self, density_range: tuple[float, float], p: float) -> None:
        super().__init__(p=p)
        self.density_range = density_range

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        height, width = params["shape"][:2]
        grid = self.random_generator.random((self.CELLS, self.CELLS), np.float32)
        field = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        return {"density": self.py_random.uniform(*self.density_range) * field[:, :, None]}

    def apply(self, img: np.ndarray, density: np.ndarray, **params: Any) -> np.ndarray:
        return np.rint(img + density * (255 - img.astype(np.float32))).astype(np.uint8)


def _light() -> list[A.BasicTransform]:
    # Aerial views have no up: draw the eight symmetries of the square equally often.
    return [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=1.0)]


def _medium() -> list[A.BasicTransform]:
    return [
        *_light(),
        A.Affine(
            translate_percent=(-0.2, 0.2),
            scale=(0.7, 1.3),
            rotate=(-0.4, 0.4),
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.7,
        ),
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.3, p=0.5),
        A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=15, val_shift_limit=15, p=0.3),
    ]


def _heavy() -> list[A.BasicTransform]:
    return [
        *_medium(),
        # The default region is the lower half, for street scenes; seen from above, use the whole.
        A.RandomShadow(
            shadow_roi=(0, 0, 1, 1),
            num_shadows_limit=(1, 2),
            shadow_intensity_range=(0.3, 0.5),
            p=0.3,
        ),
        A.RandomGamma(gamma_limit=(80, 120), p=0.3),
        A.CLAHE(clip_limit=(1.0, 2.0), p=0.2),
        A.ImageCompression(quality_range=(70, 95), p=0.3),
    ]


def _extreme() -> list[A.BasicTransform]:
    return [
        *_heavy(),
        A.ElasticTransform(alpha=30, sigma=6, border_mode=cv2.BORDER_REFLECT_101, p=0.3),
        # fill_mask None keeps the truth: a roof under a tree or a cloud is still a roof.
        A.CoarseDropout(
            num_holes_range=(1, 6),
            hole_height_range=(0.03, 0.1),
            hole_width_range=(0.03, 0.1),
            fill_mask=None,
            p=0.3,
        ),
        Fog(density_range=(0.1, 0.4), p=0.2),
    ]


_BUILD = {"none": list, "light": _light, "medium": _medium, "heavy": _heavy, "extreme": _extreme}


class UnknownBorderAffine(A.Affine):
    """Mirrors the image at the border; in the mask, what it mirrors is unknown."""

    def apply_to_mask(
        self, mask: np.ndarray, matrix: np.ndarray, output_shape: tuple[int, int], **params: Any
    ) -> np.ndarray:
        size = output_shape[1], output_shape[0]
        return cv2.warpAffine(
            mask,
            matrix[:2],
            size,
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(UNKNOWN,),
        ).astype(np.uint8, copy=False)


class UnknownBorderElastic(A.ElasticTransform):
    """Mirrors the image at the border; in the mask, what it mirrors is unknown."""

    def apply_to_mask(
        self, mask: np.ndarray, map_x: np.ndarray, map_y: np.ndarray, **params: Any
    ) -> np.ndarray:
        return cv2.remap(
            mask,
            map_x.astype(np.float32),
            map_y.astype(np.float32),
            cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(UNKNOWN,),
        ).astype(np.uint8, copy=False)


UNKNOWN_BORDER: dict[type, type] = {
    A.Affine: UnknownBorderAffine,
    A.ElasticTransform: UnknownBorderElastic,
}
"""Transforms that mirror at the border, and their variants whose border is unknown."""


class Augmenter:
    """An augmentation preset that gives the same view for the same seed, in any process.

    Every draw has a seed of its own, so a view depends neither on the number of workers nor on
    earlier draws, and no two draws share a random stream by accident.

    Shifts and elastic warps mirror image and mask at the border. With ``unknown_border``, what they
    mirror is unknown in the mask. Ground under the holes of CoarseDropout is known as before.
    """

    def __init__(self, preset: str, unknown_border: bool = False) -> None:
        transforms = _BUILD[preset]()
        if unknown_border:
            # The same arguments and draws, so the same images.
            transforms = [
                UNKNOWN_BORDER[type(each)](**each.get_transform_init_args())
                if type(each) in UNKNOWN_BORDER
                else each
                for each in transforms
            ]
        # strict: a misspelt argument is an error, not a warning with the default value.
        self._compose = A.Compose(transforms, strict=True)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1, `UNKNOWN`} alike.

        ``seed`` is 0 or more.
        """
        # All transforms share one generator. Compose(seed=n) and set_random_seed would give each
        # transform a copy of the same stream, and both flips would always fire together.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = self._compose(image=image, mask=mask)
        return out["image"], out["mask"]
