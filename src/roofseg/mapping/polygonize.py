"""Turn connected components of a raster into polygons, strip by strip.

A component that reaches the last row of a strip stays open until the strip in which it ends. Thus
memory grows with the size of a strip and the outlines of open components, not with the height of
the raster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import shapes
from rasterio.transform import Affine

Strip = tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Component:
    """Building pixels that are 4-connected: through sides, not only through corners.

    ``polygon`` is the outline in pixels from the raster's top-left corner: x to the right, y
    downwards. Its vertices are corners of pixels; enclosed pixels that are not building are holes.
    ``pixels`` is the number of pixels, ``probability`` the sum (not mean) of their probabilities.
    """

    polygon: shapely.Polygon
    pixels: int
    probability: float


def polygonize(strips: Iterable[Strip]) -> Iterator[Component]:
    """Find the components of a raster that comes in strips of rows, from the top.

    A strip is a pair: (h, W) bool, True for building, and (h, W) probabilities; h may vary.
    Components come in the order of the strips in which they end; apart from this order, the result
    does not depend on how the raster is cut into strips.
    """
    from scipy.sparse import coo_array  # takes 0.3 s
    from scipy.sparse.csgraph import connected_components

    row = 0
    open_: list[list[Component]] = []  # the pieces of each component that reaches the row above
    above: npt.NDArray[np.intp] | None = None  # that row: 1 + index in ``open_``; 0 is background
    for building, probability in strips:
        labels, new = _label(building, probability, row)
        pieces = [[], *open_, *([component] for component in new)]
        top, bottom = (np.where(line > 0, line + len(open_), 0) for line in labels[[0, -1]])
        above = np.zeros_like(top) if above is None else above
        touching = (top > 0) & (above > 0)
        pairs = (top[touching], above[touching])
        links = coo_array((np.ones(len(pairs[0])), pairs), (len(pieces), len(pieces)))
        count, whole_of = connected_components(links, directed=False)
        wholes: list[list[Component]] = [[] for _ in range(count)]
        for whole, parts in zip(whole_of.tolist(), pieces, strict=True):
            wholes[whole] += parts
        continued, index = np.unique(whole_of[bottom[bottom > 0]], return_inverse=True)
        ended = np.setdiff1d(whole_of[1:], continued)  # 0 is the background
        yield from (_merge(wholes[whole]) for whole in ended.tolist())
        open_ = [wholes[whole] for whole in continued.tolist()]
        above = np.zeros_like(bottom)
        above[bottom > 0] = index + 1
        row += len(building)
    yield from map(_merge, open_)


def _label(
    building: npt.NDArray[np.bool_], probability: npt.NDArray[np.floating], row: int
) -> tuple[npt.NDArray[np.int32], list[Component]]:
    """Label the components of a strip that begins at ``row``, from 1; 0 is the background.

    Returns the (h, W) labels, and the component of each label.
    """
    count, labels = cv2.connectedComponents(building.view(np.uint8), connectivity=4)
    inside = labels[building]
    pixels = np.bincount(inside, minlength=count)
    sums = np.bincount(inside, probability[building], minlength=count)
    outlines = shapes(labels, building, transform=Affine.translation(0, row))
    rings = {int(label): outline["coordinates"] for outline, label in outlines}
    components = [
        Component(
            shapely.Polygon(rings[label][0], rings[label][1:]),
            int(pixels[label]),
            float(sums[label]),
        )
        for label in range(1, count)
    ]
    return np.asarray(labels, np.int32), components


def _merge(pieces: Sequence[Component]) -> Component:
    if len(pieces) == 1:
        return pieces[0]
    union = shapely.union_all([piece.polygon for piece in pieces])
    return Component(
        shapely.simplify(union, 0),  # removes the vertices along the seams
        sum(piece.pixels for piece in pieces),
        sum(piece.probability for piece in pieces),
    )
