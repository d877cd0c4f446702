"""An open raster through a model: windows in batches, and from them blocks of probabilities.

Reading and inference overlap, each in a thread. Memory does not grow with the raster: rows of
windows are read, blended and given one after the other, in strips of columns of limited width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roofseg.core.errors import UserError
from roofseg.core.images import Image
from roofseg.inference.predictor import Images, Probabilities
from roofseg.sliding_window.imagery import Imagery
from roofseg.sliding_window.prefetch import ahead
from roofseg.sliding_window.windows import OVERLAP, Axis, Blend

# Strips begin at multiples of this many columns: of the tiles that `roofseg.mapping.cog` writes.
STRIP_MULTIPLE = 512
# In a raster that is wider, windows on the border of two strips are computed twice: some 3 % more
# of 512 px, 6 % of 1024 px.
STRIP_COLUMNS = 32 * STRIP_MULTIPLE
BATCH_PIXELS = 2**20

Valid = npt.NDArray[np.bool_]  # (rows, columns): False where the raster has no data
# Batches of images in, their probabilities out, in the same order: what runs the predictor.
Infer = Callable[[Iterator[Images]], Iterator[Probabilities]]


@dataclass(frozen=True, eq=False)
class Block:
    """A finished part of a raster: its top-left pixel, and its (rows, columns).

    ``probability`` is float32 in [0, 1]; where ``valid`` is False it means nothing.
    """

    row: int
    col: int
    probability: Probabilities
    valid: Valid


def predict_blocks(
    imagery: Imagery,
    window: int,
    infer: Infer,
    *,
    overlap: float = OVERLAP,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda windows: None,
) -> Generator[Block, None, None]:
    """Predict an open raster; its blocks cover it once, from the top, strip by strip.

    Windows without any data are not predicted, except for the first of a row of them.

    Args:
        imagery: the raster, which is read in another thread meanwhile.
        window: the predictor's window, pixels.
        infer: runs the predictor, such as ``partial(map, predictor)``; called once, and its
            iterator runs in a thread of its own. The batches depend on nothing but the raster and
            these arguments, so whatever runs them gives the same result.
        overlap: of neighbouring windows, a share of their side, [0, 0.5].
        batch_size: windows at a time; None for as many as make `BATCH_PIXELS`, but one at least.
        progress: told how many windows were done, of `count_windows`.

    Raises:
        UserError: the raster is damaged, or the model gives NaN
    """
    rows, cols = _axes(imagery, window, overlap)
    batch_size = batch_size or max(1, BATCH_PIXELS // window**2)
    running: deque[_Batch] = deque()

    def images() -> Generator[Images, None, None]:
        with closing(ahead(_batches(imagery, rows, cols, batch_size))) as batches:
            for batch in batches:
                running.append(batch)
                yield batch.images

    with closing(images()) as batches, closing(ahead(infer(batches))) as results:
        for probabilities in results:
            batch = running.popleft()
            if batch.first:
                blend = Blend(rows, cols, batch.left, batch.right)
            for place, probability in zip(batch.places, probabilities, strict=True):
                blend.add(batch.row, place, probability)
            progress(batch.done)
            if batch.valid is not None:
                ready = blend.finish(batch.row)
                if np.isnan(ready).any():
                    raise UserError(
                        f"{imagery.name}: the model gives NaN for some of its windows. Try "
                        "--precision 32-true; if that gives NaN too, train the model anew."
                    )
                end = rows.finished(batch.row)
                yield Block(end - len(ready), batch.left, ready, batch.valid)


def count_windows(imagery: Imagery, window: int, overlap: float = OVERLAP) -> int:
    """How many windows `predict_blocks` tells its ``progress`` of in all."""
    rows, cols = _axes(imagery, window, overlap)
    return len(rows.starts) * sum(len(cols.covering(*strip)) for strip in _strips(cols.length))


@dataclass(frozen=True, eq=False)
class _Batch:
    """Windows of one row: their images, and their places among the windows."""

    images: Images
    row: int
    places: Sequence[int]
    done: int  # windows dealt with: these, and those without data before them
    left: int  # columns of the raster that the strip takes
    right: int
    first: bool  # of its strip
    valid: Valid | None  # of the rows of the raster that are finished with this batch


def _axes(imagery: Imagery, window: int, overlap: float) -> tuple[Axis, Axis]:
    return Axis(imagery.height, window, overlap), Axis(imagery.width, window, overlap)


def _strips(width: int) -> list[tuple[int, int]]:
    """The first and the end column of each strip: even shares, beginning at whole multiples."""
    count = math.ceil(width / STRIP_COLUMNS)
    step = math.ceil(width / count / STRIP_MULTIPLE) * STRIP_MULTIPLE
    return [(left, min(left + step, width)) for left in range(0, width, step)]


def _batches(
    imagery: Imagery, rows: Axis, cols: Axis, batch_size: int
) -> Generator[_Batch, None, None]:
    for left, right in _strips(cols.length):
        places = cols.covering(left, right)
        shown = np.concatenate([cols.pixels(place) for place in places])
        origin, end = int(shown.min()), int(shown.max()) + 1
        with closing(ahead(_bands(imagery, rows, origin, end), depth=1)) as bands:
            for row, (top, image, valid) in enumerate(bands):
                down = rows.index(row, top)
                across = {place: cols.index(place, origin) for place in places}
                seen = [place for place in places if valid[:, across[place]][down].any()]
                chunks = _chunks(seen or places[:1], batch_size)
                ready = slice(rows.finished(row - 1) - top, rows.finished(row) - top)
                for number, chunk in enumerate(chunks, start=1):
                    last = number == len(chunks)
                    yield _Batch(
                        np.stack([image[:, across[place]][down] for place in chunk]),
                        row,
                        chunk,
                        done=len(places) - (number - 1) * batch_size if last else batch_size,
                        left=left,
                        right=right,
                        first=row == 0 and number == 1,
                        valid=valid[ready, left - origin : right - origin] if last else None,
                    )


def _chunks(places: Sequence[int], size: int) -> list[Sequence[int]]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def _bands(
    imagery: Imagery, rows: Axis, left: int, right: int
) -> Iterator[tuple[int, Image, Valid]]:
    """For each row of windows its first row of the raster, image and valid; no row is read twice.

    ``left`` and ``right`` are the columns to read.
    """
    top, image = 0, np.empty((0, right - left, 3), np.uint8)
    valid = np.empty((0, right - left), bool)
    for row in range(len(rows.starts)):
        shown = rows.pixels(row)
        first, end = int(shown.min()), int(shown.max()) + 1
        held = top + len(image)
        image, valid = image[first - top :], valid[first - top :]
        top = first
        if end > held:
            more, more_valid = imagery.read(held, end - held, left, right - left)
            image = np.concatenate([image, more])
            valid = np.concatenate([valid, more_valid])
        yield top, image, valid
