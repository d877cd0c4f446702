"""Run a model over an open raster: batches of windows in, blocks of probabilities out.

Reading and inference run in two threads at the same time. Memory does not grow with the raster: it
is divided into strips of columns of limited width, and in each strip rows of windows are read,
blended and yielded one after the other.
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
from roofseg.sliding_window.prefetch import prefetch
from roofseg.sliding_window.windows import OVERLAP, Axis, Blend

# Strips begin at multiples of this many columns, the tile size that `roofseg.mapping.cog` writes.
STRIP_MULTIPLE = 512
# Wider rasters have several strips. Windows on the border of two strips are computed twice: that is
# 3 % more windows of 512 px, and 6 % more of 1024 px.
STRIP_COLUMNS = 32 * STRIP_MULTIPLE
BATCH_PIXELS = 2**20  # pixels of a batch if its size is not given

Valid = npt.NDArray[np.bool_]  # (rows, columns): False where the raster has no data
# Runs the predictor: batches of images in, their probabilities out, in the same order.
Infer = Callable[[Iterator[Images]], Iterator[Probabilities]]


@dataclass(frozen=True, eq=False)
class Block:
    """A finished part of a raster.

    Attributes:
        row, col: its top-left pixel
        probability: (rows, columns) float32 in [0, 1]; meaningless where ``valid`` is False
        valid: (rows, columns) bool; False where the raster has no data
        disagreement: (rows, columns) float32, if the predictor gives it; likewise
    """

    row: int
    col: int
    probability: Probabilities
    valid: Valid
    disagreement: Probabilities | None = None


def predict_blocks(
    imagery: Imagery,
    window: int,
    infer: Infer,
    *,
    overlap: float = OVERLAP,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda windows: None,
) -> Generator[Block, None, None]:
    """Predict an open raster, and yield blocks that cover every pixel once.

    Blocks come strip by strip from the left, and within a strip from the top. Windows without any
    data are skipped; where a whole row of windows has no data, its first window is still predicted.

    Args:
        imagery: the raster; another thread reads it.
        window: the predictor's window, pixels.
        infer: runs the predictor, such as ``partial(map, predictor)``; called once, and its
            iterator runs in a thread of its own. The batches depend only on the raster and these
            arguments, so a predictor gives the same result however it is run.
        overlap: the least overlap of neighbouring windows as a share of their side, in [0, 0.5].
        batch_size: windows at a time; None for as many as fit `BATCH_PIXELS`, but at least one.
        progress: called with the number of windows finished since the last call; the numbers add up
            to `count_windows`.

    Raises:
        UserError: the raster is damaged, or the model gives NaN
    """
    rows, cols = _axes(imagery, window, overlap)
    batch_size = batch_size or max(1, BATCH_PIXELS // window**2)
    running: deque[_Batch] = deque()

    def images() -> Generator[Images, None, None]:
        with closing(prefetch(_batches(imagery, rows, cols, batch_size))) as batches:
            for batch in batches:
                running.append(batch)
                yield batch.images

    with closing(images()) as batches, closing(prefetch(infer(batches))) as results:
        for probabilities in results:
            batch = running.popleft()
            if batch.first:
                channels = probabilities.shape[1:-2]
                blend = Blend(rows, cols, batch.left, batch.right, channels)
            for place, probability in zip(batch.places, probabilities, strict=True):
                blend.add(batch.row, place, probability)
            progress(batch.done)
            if batch.valid is not None:
                ready = blend.finish(batch.row)
                if np.isnan(ready).any():
                    raise UserError(
                        f"{imagery.name}: the model gives NaN for some of its windows. Try "
                        "--precision 32-true; if that gives NaN too, train the model again."
                    )
                end = rows.finished(batch.row)
                probability, disagreement = ready if channels else (ready, None)
                yield Block(
                    end - len(probability), batch.left, probability, batch.valid, disagreement
                )


def count_windows(imagery: Imagery, window: int, overlap: float = OVERLAP) -> int:
    """Count all windows that `predict_blocks` reports to ``progress``, skipped ones included."""
    rows, cols = _axes(imagery, window, overlap)
    return len(rows.starts) * sum(len(cols.covering(*strip)) for strip in _strips(cols.length))


@dataclass(frozen=True, eq=False)
class _Batch:
    """Windows of one row of windows in a strip."""

    images: Images
    row: int  # index of the row of windows
    places: Sequence[int]  # column index of each window
    done: int  # windows finished with this batch, including skipped ones without data
    left: int  # first column of the strip in the raster
    right: int  # its end column
    first: bool  # whether this is the first batch of its strip
    valid: Valid | None  # of the raster's rows that this batch finishes; None if it finishes none


def _axes(imagery: Imagery, window: int, overlap: float) -> tuple[Axis, Axis]:
    return Axis(imagery.height, window, overlap), Axis(imagery.width, window, overlap)


def _strips(width: int) -> list[tuple[int, int]]:
    """First and end column of each strip; all start at multiples of `STRIP_MULTIPLE`."""
    count = math.ceil(width / STRIP_COLUMNS)
    step = math.ceil(width / count / STRIP_MULTIPLE) * STRIP_MULTIPLE
    return [(left, min(left + step, width)) for left in range(0, width, step)]


def _batches(
    imagery: Imagery, rows: Axis, cols: Axis, batch_size: int
) -> Generator[_Batch, None, None]:
    for left, right in _strips(cols.length):
        places = cols.covering(left, right)
        columns = np.concatenate([cols.pixels(place) for place in places])
        origin, end = int(columns.min()), int(columns.max()) + 1
        with closing(prefetch(_bands(imagery, rows, origin, end), depth=1)) as bands:
            for row, (top, image, valid) in enumerate(bands):
                row_index = rows.index(row, top)
                col_index = {place: cols.index(place, origin) for place in places}
                with_data = [
                    place for place in places if valid[:, col_index[place]][row_index].any()
                ]
                chosen = with_data or places[:1]
                chunks = [chosen[at : at + batch_size] for at in range(0, len(chosen), batch_size)]
                finished = slice(rows.finished(row - 1) - top, rows.finished(row) - top)
                for number, chunk in enumerate(chunks, start=1):
                    last = number == len(chunks)
                    yield _Batch(
                        np.stack([image[:, col_index[place]][row_index] for place in chunk]),
                        row,
                        chunk,
                        done=len(places) - (number - 1) * batch_size if last else batch_size,
                        left=left,
                        right=right,
                        first=row == 0 and number == 1,
                        valid=valid[finished, left - origin : right - origin] if last else None,
                    )


def _bands(
    imagery: Imagery, rows: Axis, left: int, right: int
) -> Iterator[tuple[int, Image, Valid]]:
    """Yield, for each row of windows, the rows of the raster that it needs; read no row twice.

    ``left`` and ``right`` are the first and end column to read. Yields the first row's number in
    the raster, the image and the mask of valid pixels.
    """
    top, image = 0, np.empty((0, right - left, 3), np.uint8)
    valid = np.empty((0, right - left), bool)
    for row in range(len(rows.starts)):
        needed = rows.pixels(row)
        first, end = int(needed.min()), int(needed.max()) + 1
        read_end = top + len(image)
        image, valid = image[first - top :], valid[first - top :]
        top = first
        if end > read_end:
            more, more_valid = imagery.read(read_end, end - read_end, left, right - left)
            image = np.concatenate([image, more])
            valid = np.concatenate([valid, more_valid])
        yield top, image, valid
