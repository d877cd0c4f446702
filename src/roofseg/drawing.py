"""Pictures of results: overlays and panels of tiles, contact sheets, and rendered figures.

Pictures are (H, W, 3) uint8 RGB, and the same input gives the same bytes. `rendered` uses
Matplotlib's Agg canvas without pyplot, so it needs no display and shares no global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from roofseg.core.images import UNKNOWN, Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RGB = tuple[int, int, int]

TRUTH = (0, 230, 60)
PREDICTION = (255, 40, 40)
BOTH = (255, 230, 0)
HIT = TRUTH
FALSE_ALARM = PREDICTION
MISSED = (40, 110, 255)
STRIPE = (225, 225, 225)

# The palette of Okabe and Ito, "Color Universal Design" (2008), whose colours are distinct for
# readers with any colour vision. Its yellow is left out (too pale on white); its black comes last.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"]

# A contact sheet: lengths in pixels, and colours.
CELL, GAP, HEADING, LINE = 320, 16, 56, 23
INK, PAPER = (40, 40, 40), 255


def colour(index: int) -> str:
    """The colour of the attempt at ``index`` (from 0) in params.yaml, as ``#RRGGBB``."""
    return COLOURS[index % len(COLOURS)]


def _outline(mask: npt.NDArray[Any], *, outside: bool) -> npt.NDArray[np.bool_]:
    """The pixels of a line along the edges of a mask, just outside or just inside.

    The border of the picture gets no line: a footprint is cut there and has no edge.
    """
    solid = (mask > 0).astype(np.uint8)
    # 1 px wide at 224 px, 2 at 512, 4 at 1024: thick enough to survive scaling.
    side = 2 * max(1, round(max(mask.shape) / 256)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    line = cv2.dilate(solid, kernel) - solid if outside else solid - cv2.erode(solid, kernel)
    return line > 0


def _tinted(image: Image, where: npt.NDArray[np.bool_], rgb: RGB, strength: float) -> Image:
    """Copy an image with a colour blended over the pixels ``where``; ``strength`` in [0, 1]."""
    tinted = image.copy()
    blend = (1 - strength) * image[where] + strength * np.array(rgb)
    tinted[where] = np.rint(blend).astype(np.uint8)
    return tinted


def _outline_of_truth(truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """The line outside the buildings of a truth; where unknown pixels begin, there is no edge."""
    return _outline((truth > 0) & (truth != UNKNOWN), outside=True) & (truth != UNKNOWN)


def hatched(image: Image, where: npt.NDArray[np.bool_]) -> Image:
    """Copy an image with diagonal stripes over the pixels ``where``, (H, W) bool."""
    drawn = _tinted(image, where, (0, 0, 0), 0.35)
    # Stripes are 2 px wide at 224 px, 4 at 512, 8 at 1024, and every fourth pixel is in one.
    width = max(1, round(max(where.shape) / 256))
    rows, columns = np.arange(where.shape[0])[:, None], np.arange(where.shape[1])
    stripes = (rows + columns) // width % 8 < 2
    return _tinted(drawn, where & stripes, STRIPE, 0.7)


def overlay(image: Image, truth: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> Image:
    """Draw the outlines of the truth (green) and of a prediction (red) on an image.

    The line of the truth runs just outside its edge and that of the prediction just inside, so
    both are visible side by side where they agree; crossing lines are yellow. Unknown pixels are
    hatched.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W), 0 background, `UNKNOWN`, anything else building.
        prediction: (H, W), 0 background, anything else building.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    unknown = truth == UNKNOWN
    actual, predicted = _outline_of_truth(truth), _outline(prediction, outside=False)
    drawn = hatched(image, unknown)
    drawn[actual] = TRUTH
    drawn[predicted] = PREDICTION
    drawn[actual & predicted] = BOTH
    return drawn


def panel(image: Image, truth: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> Image:
    """Draw an image, its truth and a prediction side by side.

    Args:
        image: (P, P, 3) uint8 RGB.
        truth: (P, P), 0 background, `UNKNOWN`, anything else building.
        prediction: (P, P), 0 background, anything else building.

    Returns:
        (P, 3 P, 3) uint8 RGB: the image; the image with footprints tinted and outlined in green;
        the image with hits tinted green, false alarms red and missed roofs blue. Unknown pixels of
        the second and third are hatched.
    """
    unknown = truth == UNKNOWN
    actual, predicted = (truth > 0) & ~unknown, (prediction > 0) & ~unknown
    footprints = hatched(_tinted(image, actual, TRUTH, 0.3), unknown)
    footprints[_outline_of_truth(truth)] = TRUTH
    # The prediction has no outline, since red around a hit would look like a false alarm. Errors
    # are tinted more strongly than hits.
    judged = _tinted(hatched(image, unknown), actual & predicted, HIT, 0.45)
    judged = _tinted(judged, predicted & ~actual, FALSE_ALARM, 0.65)
    judged = _tinted(judged, actual & ~predicted, MISSED, 0.65)
    return np.hstack([image, footprints, judged])


def split_panel(strip: Image) -> tuple[Image, Image, Image]:
    """Split a `panel` into image, truth and prediction; ValueError if it is not one."""
    height, width = strip.shape[:2]
    if width != 3 * height:
        raise ValueError(f"expected a strip of three squares, found {width} x {height} px")
    return strip[:, :height], strip[:, height : 2 * height], strip[:, 2 * height :]


@dataclass(frozen=True, eq=False)
class SheetGroup:
    """Pictures of a `contact_sheet` under one heading.

    Attributes:
        cells: (H, W, 3) uint8 RGB pictures, each with a caption. The first line of a caption is the
            picture's name.
        heading: a line above the pictures; none if empty.
        colour: of the heading, the frames and the captions below the names.
    """

    cells: Sequence[tuple[Image, str]]
    heading: str = ""
    colour: RGB = INK


def contact_sheet(title: str, groups: Sequence[SheetGroup], min_columns: int = 1) -> Image:
    """Arrange pictures with captions on one sheet, group below group.

    Args:
        title: a line at the top.
        groups: the pictures.
        min_columns: the least number of columns; a sheet of many pictures has more.

    Returns:
        (H, W, 3) uint8 RGB, `CELL` px for each picture, which is scaled to a square.
    """
    count = sum(len(group.cells) for group in groups)
    columns = max(min_columns, math.ceil(math.sqrt(count)))
    width = GAP + columns * (CELL + GAP)
    bands = [_heading(title, INK, width)]
    for group in groups:
        if group.heading:
            bands.append(_heading(group.heading, group.colour, width))
        for start in range(0, len(group.cells), columns):
            bands.append(_row(group.cells[start : start + columns], group.colour, width))
    return np.concatenate(bands)


def _heading(text: str, colour: RGB, width: int) -> Image:
    band = np.full((HEADING, width, 3), PAPER, np.uint8)
    fitting = 28 * (width - 2 * GAP) // max(1, _text_width(text, 28, 600))
    _write(band, text, (GAP, HEADING - 15), colour, min(28, fitting), 600)
    return band


def _row(cells: Sequence[tuple[Image, str]], colour: RGB, width: int) -> Image:
    lines = max(caption.count("\n") + 1 for _, caption in cells)
    band = np.full((CELL + 14 + lines * LINE + GAP, width, 3), PAPER, np.uint8)
    for index, (picture, caption) in enumerate(cells):
        left = GAP + index * (CELL + GAP)
        cv2.rectangle(band, (left - 3, 1), (left + CELL + 2, CELL + 6), colour, -1)
        # INTER_AREA keeps thin outlines where a picture shrinks.
        method = cv2.INTER_AREA if picture.shape[0] > CELL else cv2.INTER_CUBIC
        scaled = cv2.resize(picture, (CELL, CELL), interpolation=method)
        band[4 : 4 + CELL, left : left + CELL] = scaled
        name, *others = caption.splitlines() or [""]
        _write(band, _shortened(name), (left, CELL + 29), INK, 19, 600)
        for line, text in enumerate(others, 1):
            _write(band, text, (left, CELL + 29 + line * LINE), colour, 18, 500)
    return band


def _shortened(name: str) -> str:
    """Replace the middle of a name that is wider than a picture by an ellipsis."""
    shown, kept = name, len(name)
    while _text_width(shown, 19, 600) > CELL and kept > 2:
        kept -= 1
        shown = f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"
    return shown


def _text_width(text: str, size: int, weight: int) -> int:
    """The width of a line of text in pixels."""
    return int(cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), size, weight)[2])


def _write(
    band: Image, text: str, place: tuple[int, int], colour: RGB, size: int, weight: int
) -> None:
    """Write a line of text into ``band``; ``place`` is the left end of its baseline (x, y)."""
    cv2.putText(band, text, place, colour, cv2.FontFace("sans"), size, weight)


def rendered(figure: Figure) -> Image:
    """Render a figure to pixels, (H, W, 3) uint8 RGB."""
    # Imported here, since it takes most of a second and most callers only draw on images.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
