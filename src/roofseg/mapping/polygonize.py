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
    Components come in the order of the strips in which they end; apart from this
    order, the result does not depend on how the raster is cut into strips.
    """
    row = 0
    last: npt.NDArray[np.int32] | None = None
    open_: dict[int, _DisjointSet] = {}  # by label in ``last``, the row above the strip
    for building, probability in strips:
        labels, components = _label(building, probability, row)
        joined = {label: _DisjointSet(component) for label, component in components.items()}
        if last is not None:
            touching = (last > 0) & (labels[0] > 0)
            pairs = np.unique(np.stack([last[touching], labels[0][touching]]), axis=1)
            for above, below in pairs.T.tolist():
                open_[above].join(joined[below])
        last = labels[-1].copy()
        everything = dict.fromkeys(part.whole() for part in (*open_.values(), *joined.values()))
        open_ = {label: joined[label].whole() for label in np.unique(last).tolist() if label}
        unfinished = set(open_.values())
        yield from (_merge(whole.pieces) for whole in everything if whole not in unfinished)
        row += len(building)
    yield from (_merge(whole.pieces) for whole in dict.fromkeys(open_.values()))


class _DisjointSet:
    """The pieces of a component in several strips (a disjoint-set forest)."""

    def __init__(self, piece: Component) -> None:
        self.pieces = [piece]
        self._parent: _DisjointSet | None = None

    def whole(self) -> _DisjointSet:
        root = self
        while root._parent is not None:
            root = root._parent
        return root

    def join(self, other: _DisjointSet) -> None:
        small, large = sorted((self.whole(), other.whole()), key=lambda whole: len(whole.pieces))
        if small is not large:  # the larger set takes the smaller, so trees stay shallow
            large.pieces += small.pieces
            small._parent = large


def _label(
    building: npt.NDArray[np.bool_], probability: npt.NDArray[np.floating], row: int
) -> tuple[npt.NDArray[np.int32], dict[int, Component]]:
    """Label the components of a strip that begins at ``row``, from 1; 0 is the background."""
    count, labels = cv2.connectedComponents(building.view(np.uint8), connectivity=4)
    inside = labels[building]
    pixels = np.bincount(inside, minlength=count)
    sums = np.bincount(inside, probability[building], minlength=count)
    down = Affine.translation(0, row)
    outlines = shapes(labels, building, transform=down)
    components = {
        int(label): Component(
            shapely.Polygon(outline["coordinates"][0], outline["coordinates"][1:]),
            int(pixels[int(label)]),
            float(sums[int(label)]),
        )
        for outline, label in outlines
    }
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
