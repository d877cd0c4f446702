"""Pictures of results: overlays and panels of tiles, comparison grids, convergence curves.

Every function returns pixels, (H, W, 3) uint8 RGB, the same bytes for the same input. Figures are
drawn with Matplotlib's objects on its Agg canvas: no pyplot, so no state and no display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from matplotlib.ticker import MaxNLocator

from roofseg.files import Image

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


def thirds(strip: Image) -> tuple[Image, Image, Image]:
    """Cut a `panel` into image, truth and prediction; ValueError if it is no such strip."""
    height, width = strip.shape[:2]
    if width != 3 * height:
        raise ValueError(f"expected a strip of three squares, found {width} x {height} px")
    return strip[:, :height], strip[:, height : 2 * height], strip[:, 2 * height :]


class _Page:
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


@dataclass(frozen=True)
class Column:
    """A column of a comparison grid: a heading, then one picture (and caption) per tile."""

    heading: str
    pictures: Sequence[Image]
    captions: Sequence[str] = field(default_factory=tuple)


def comparison_grid(tiles: Sequence[str], columns: Sequence[Column], title: str = "") -> Image:
    """Tiles as rows beside each other in columns: image, truth, and one per attempt.

    Args:
        tiles: names of the rows.
        columns: each with one (H, W, 3) uint8 picture per tile.
        title: a line above the grid.

    Returns:
        (H, W, 3) uint8 RGB, 256 px per cell.
    """
    across, down = CELL + GAP, CELL + CAPTION + GAP
    page = _Page(LEFT + len(columns) * across, TOP + len(tiles) * down + BOTTOM)
    page.text(LEFT, 16, title, va="top", fontsize=9, wrap=True)
    for row, tile in enumerate(tiles):
        middle = TOP + row * down + CELL / 2
        page.text(LEFT - 10, middle, tile, ha="right", va="center", rotation=90, fontsize=8)
    for index, column in enumerate(columns):
        x = LEFT + index * across
        longest = max(map(len, column.heading.splitlines()), default=0)
        page.text(
            x + CELL / 2,
            TOP - 8,
            column.heading,
            ha="center",
            va="bottom",
            fontsize=8 * min(1, 22 / max(longest, 1)),  # 22 bold letters at 8 pt fill a cell
            fontweight="bold",
            linespacing=1.3,
        )
        for row, picture in enumerate(column.pictures):
            caption = column.captions[row] if column.captions else ""
            page.picture(x, TOP + row * down, picture, caption)
    swatches = [
        Swatch(facecolor=f"#{bytes(rgb).hex()}", label=name)
        for name, rgb in {"found": HIT, "missed": MISSED, "false alarm": FALSE_ALARM}.items()
    ]
    page.figure.legend(
        handles=swatches, loc="lower center", ncols=len(swatches), frameon=False, fontsize=8
    )
    return page.rendered()


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
    page = _Page(GAP + columns * (CELL + GAP), top + rows * (CELL + CAPTION + GAP))
    page.text(GAP, 16, title, va="top", fontsize=9, wrap=True)
    for index, (picture, caption) in enumerate(cells):
        row, column = divmod(index, columns)
        x, y = GAP + column * (CELL + GAP), top + row * (CELL + CAPTION + GAP)
        page.picture(x, y, picture, caption)
    return page.rendered()


def convergence(curves: pd.DataFrame) -> Image:
    """Validation IoU by epoch, one line per attempt, its best epoch marked.

    Args:
        curves: columns attempt, epoch (from 1), val_iou; colours follow the order of attempts.

    Returns:
        (H, W, 3) uint8 RGB, 1600 x 768 px.
    """
    figure = Figure(figsize=(10, 4.8), dpi=160, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for index, (attempt, curve) in enumerate(curves.groupby("attempt", sort=False)):
        known = curve.dropna(subset="val_iou")
        line: dict[str, Any] = {"color": colour(index), "linewidth": 2}
        if known.empty:
            axes.plot([], [], label=f"{attempt} (no finite value)", **line)
            continue
        best = known.loc[known.val_iou.idxmax()]
        label = f"{attempt}  {best.val_iou:.3f} (epoch {best.epoch:.0f})"
        axes.plot(curve.epoch, curve.val_iou, label=label, **line)
        axes.plot(
            best.epoch,
            best.val_iou,
            marker="o",
            markersize=9,
            color=colour(index),
            markeredgecolor="white",
            markeredgewidth=1.5,
            zorder=3,
        )
    axes.set_xlim(left=0.5)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation IoU (mean over tiles)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        title="best epoch",
        title_fontproperties={"weight": "bold"},
        alignment="left",
    )
    return rendered(figure)


def rendered(figure: Figure) -> Image:
    """The pixels of a figure, (H, W, 3) uint8 RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
