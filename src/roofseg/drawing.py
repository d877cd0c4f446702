"""Pictures of results: overlays and panels of tiles, comparison grids, convergence curves.

Every function returns pixels, (H, W, 3) uint8 RGB, the same bytes for the same input. Figures are
drawn with Matplotlib's objects on its Agg canvas: no pyplot, so no state and no display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from roofseg.core.images import Image

TRUTH = (0, 230, 60)
PREDICTION = (255, 40, 40)
BOTH = (255, 230, 0)
HIT = TRUTH
FALSE_ALARM = PREDICTION
MISSED = (40, 110, 255)

# Okabe and Ito's palette, "Color Universal Design" (2008), which readers with any colour vision
# can tell apart; without its yellow, too pale on white, and with black last.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"]

# Pixels of a page: a picture's side, the gap between pictures, the line below one for its caption,
# and the margins for title and headings, legend, and names of rows.
CELL, GAP, CAPTION = 256, 10, 26
TOP, BOTTOM, LEFT = 140, 48, 44
DOTS_PER_INCH = 150


def colour(index: int) -> str:
    """The colour of the attempt at ``index`` (from 0) in params.yaml, as ``#RRGGBB``."""
    return COLOURS[index % len(COLOURS)]


def _kernel(width: int) -> Image:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1)).astype(
        np.uint8
    )


def _line_width(mask: npt.NDArray[Any]) -> int:
    """Pixels: 1 at 224 px, 2 at 512, 4 at 1024, so that a picture scaled down keeps its lines."""
    return max(1, round(max(mask.shape) / 256))


def _outline(mask: npt.NDArray[Any], *, outside: bool) -> npt.NDArray[np.bool_]:
    """The line along the edges of a mask, just outside of it or just inside.

    No line runs along the border of the picture, where a footprint is cut and has no edge.
    """
    solid = (mask > 0).astype(np.uint8)
    kernel = _kernel(_line_width(mask))
    line = cv2.dilate(solid, kernel) - solid if outside else solid - cv2.erode(solid, kernel)
    return line > 0


def _tinted(
    image: Image, where: npt.NDArray[np.bool_], rgb: tuple[int, int, int], strength: float
) -> Image:
    """A copy with a colour laid over the pixels ``where``; ``strength`` in [0, 1]."""
    tinted = image.copy()
    blend = (1 - strength) * image[where] + strength * np.array(rgb)
    tinted[where] = np.rint(blend).astype(np.uint8)
    return tinted


def overlay(image: Image, truth: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> Image:
    """Draw the outlines of the truth (green) and of a prediction (red) on an image.

    The truth's line runs just outside of its edge and the prediction's just inside, so that where
    the two agree both are seen, side by side; where lines cross they are yellow.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W), 0 background, anything else building.
        prediction: likewise.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    actual, predicted = _outline(truth, outside=True), _outline(prediction, outside=False)
    drawn = image.copy()
    drawn[actual] = TRUTH
    drawn[predicted] = PREDICTION
    drawn[actual & predicted] = BOTH
    return drawn


def panel(image: Image, truth: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> Image:
    """An image, its truth and a prediction side by side.

    Args:
        image: (P, P, 3) uint8 RGB.
        truth: (P, P), 0 background, anything else building.
        prediction: likewise.

    Returns:
        (P, 3 P, 3) uint8 RGB: the image; the image with footprints tinted and outlined in green;
        the image with hits tinted green, false alarms red and missed roofs blue.
    """
    actual, predicted = truth > 0, prediction > 0
    footprints = _tinted(image, actual, TRUTH, 0.3)
    footprints[_outline(truth, outside=True)] = TRUTH
    # No outline on the prediction: red around a hit would read as a false alarm. What is wrong is
    # tinted harder than what is right.
    judged = _tinted(image, actual & predicted, HIT, 0.45)
    judged = _tinted(judged, predicted & ~actual, FALSE_ALARM, 0.65)
    judged = _tinted(judged, actual & ~predicted, MISSED, 0.65)
    return np.hstack([image, footprints, judged])


def split_panel(strip: Image) -> tuple[Image, Image, Image]:
    """Split a `panel` into image, truth and prediction; ValueError if it is not one."""
    height, width = strip.shape[:2]
    if width != 3 * height:
        raise ValueError(f"expected a strip of three squares, found {width} x {height} px")
    return strip[:, :height], strip[:, height : 2 * height], strip[:, 2 * height :]


class Sheet:
    """A white page to put pictures and text on, in pixels from its top left."""

    def __init__(self, width: int, height: int) -> None:
        self._pixels = np.full((height, width, 3), 255, np.uint8)
        # Half a pixel more, since a canvas rounds its size down.
        size = ((width + 0.5) / DOTS_PER_INCH, (height + 0.5) / DOTS_PER_INCH)
        self.figure = Figure(figsize=size, dpi=DOTS_PER_INCH)
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set(xlim=(0, width), ylim=(height, 0))

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        self._axes.text(x, y, text, **style)

    def picture(self, x: int, y: int, picture: Image, caption: str = "") -> None:
        """Put a picture, scaled to a cell, with its caption below."""
        # By area where it shrinks: that keeps thin outlines.
        method = cv2.INTER_AREA if picture.shape[0] > CELL else cv2.INTER_CUBIC
        scaled = cv2.resize(picture, (CELL, CELL), interpolation=method)
        self._pixels[y : y + CELL, x : x + CELL] = scaled
        self.text(x + CELL / 2, y + CELL + 5, caption, ha="center", va="top", fontsize=7)

    def rendered(self) -> Image:
        drawn = rendered(self.figure)[: self._pixels.shape[0], : self._pixels.shape[1]]
        # Pictures go in pixel by pixel, not resampled by the canvas; no text lies on them.
        return np.where((self._pixels < 255).any(axis=2, keepdims=True), self._pixels, drawn)


def contact_sheet(cells: Sequence[tuple[Image, str]], title: str = "") -> Image:
    """Pictures with captions, side by side on one page.

    Args:
        cells: pairs of an (H, W, 3) uint8 picture and its caption.
        title: a line above them.

    Returns:
        (H, W, 3) uint8 RGB, 256 px per cell.
    """
    columns = math.ceil(math.sqrt(len(cells)))
    rows = math.ceil(len(cells) / columns)
    top = TOP // 2
    page = Sheet(GAP + columns * (CELL + GAP), top + rows * (CELL + CAPTION + GAP))
    page.text(GAP, 16, title, va="top", fontsize=9, wrap=True)
    for index, (picture, caption) in enumerate(cells):
        row, column = divmod(index, columns)
        x, y = GAP + column * (CELL + GAP), top + row * (CELL + CAPTION + GAP)
        page.picture(x, y, picture, caption)
    return page.rendered()


def rendered(figure: Figure) -> Image:
    """The pixels of a figure, (H, W, 3) uint8 RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
