"""Whole rasters of any size through a model: masks or probabilities on the raster's own grid.

Reading, inference and writing overlap, each in a thread. Memory does not grow with the raster: rows
of windows are read, blended and written one after the other, in strips of columns of limited width.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from roofseg.ahead import ahead
from roofseg.cogs import TILE, Canvas, Layer, writing
from roofseg.errors import UserError
from roofseg.files import Image, replaced
from roofseg.imagery import Imagery, file_name, open_imagery, opened
from roofseg.predictors import D4, Images, Predictor, Probabilities
from roofseg.version import VERSION
from roofseg.windows import OVERLAP, Axis, Blend

if TYPE_CHECKING:
    from roofseg.layers import Driver

VECTORS = ("gpkg", "geojson", "parquet")
# In a raster that is wider, windows on the border of two strips are computed twice: some 3 % more
# of 512 px, 6 % of 1024 px.
STRIP_COLUMNS = 32 * TILE
BATCH_PIXELS = 2**20
MASK = Layer("uint8", 255, "mode", "building (1)")
PROBABILITY = Layer("float32", np.nan, "average", "probability of building")

Valid = npt.NDArray[np.bool_]  # (rows, columns): False where the raster has no data
# Batches of images in, their probabilities out, in the same order: what runs the predictor.
Infer = Callable[[Iterator[Images]], Iterator[Probabilities]]


@dataclass(frozen=True)
class Vector:
    """Footprints beside the raster: see `roofseg.footprints.write_footprints`."""

    driver: Driver
    min_area_m2: float = 0.0
    simplify_m: float = 0.0
    regularise: bool = False


@dataclass(frozen=True)
class Options:
    """What decides a raster's result, beside the model.

    Args:
        output: "mask", uint8 {0, 1} with nodata 255; or "probability", float32 in [0, 1] with
            nodata NaN
        threshold: the least probability of a building
        overlap: of neighbouring windows, a share of their side, [0, 0.5]
        tta: average over the eight symmetries of the square
        batch_size: windows at a time, which changes memory, speed and roundings; None for as many
            as make `BATCH_PIXELS`, but one at least
        gsd: metres per pixel, in place of what the input says of itself
        resample: bring an input to the GSD that the model was trained on
        scale: the values that become 0 and 255, for an input that is not 8-bit
        vector: footprints to write beside the raster; None for none
    """

    output: Literal["mask", "probability"] = "mask"
    threshold: float = 0.5
    overlap: float = OVERLAP
    tta: bool = False
    batch_size: int | None = None
    gsd: float | None = None
    resample: bool = False
    scale: tuple[float, float] | None = None
    vector: Vector | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """A finished part of a raster: its top-left pixel, and its (rows, columns).

    ``probability`` is float32 in [0, 1]; where ``valid`` is False it means nothing.
    """

    row: int
    col: int
    probability: Probabilities
    valid: Valid


def predict_raster(
    predictor: Predictor,
    source: str,
    out: Path,
    options: Options,
    *,
    infer: Infer | None = None,
    progress: Callable[[int], None] = lambda windows: None,
) -> None:
    """Predict one raster and write it as a cloud-optimised GeoTIFF, and its footprints beside it.

    Args:
        predictor: the model; its GSD and provenance count even where ``infer`` runs it elsewhere.
        source: what GDAL opens: a path, /vsi..., s3:// or https://.
        out: the GeoTIFF; footprints get its name with another suffix (`footprints_path`). What was
            there is replaced, by whole files or not at all.
        options: see `Options`; ``infer`` must heed ``tta`` itself (`roofseg.predictors.D4`).
        infer: see `predict_blocks`; None runs ``predictor`` here.
        progress: told how many windows were done, of `count_windows`.

    Raises:
        UserError: the input cannot be read or predicted as it is, or the output cannot be written
    """
    infer = infer or partial(map, D4(predictor) if options.tta else predictor)
    tags = provenance(predictor, source, options)
    wanted = MASK if options.output == "mask" else PROBABILITY
    layers = [MASK, PROBABILITY] if options.vector and wanted is MASK else [wanted]
    with (
        open_input(predictor, source, options) as imagery,
        writing(out),
        replaced(out) as made,
    ):
        with ExitStack() as painting:
            canvases = {
                layer: painting.enter_context(_canvas(imagery, layer, made.parent, tags))
                for layer in layers
            }
            blocks = predict_blocks(
                imagery,
                predictor.window,
                infer,
                overlap=options.overlap,
                batch_size=options.batch_size,
                progress=progress,
            )
            for block in painting.enter_context(closing(blocks)):
                for layer, canvas in canvases.items():
                    canvas.write(block.row, block.col, _values(block, layer, options.threshold))
        canvases[wanted].publish(made)
        if options.vector:
            from roofseg.footprints import write_footprints  # half a second

            write_footprints(
                canvases[PROBABILITY].path,
                footprints_path(out, options.vector),
                **asdict(options.vector),
                gsd=imagery.gsd,
                threshold=options.threshold,
                provenance=tags,
            )


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
            the options, so whatever runs them gives the same result.
        overlap, batch_size: see `Options`.
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


@contextmanager
def open_input(predictor: Predictor, source: str, options: Options) -> Iterator[Imagery]:
    """Open a raster for `predict_blocks`; UserError where it cannot be predicted as it is.

    Also where its footprints cannot be written afterwards, as far as its header tells.
    """
    with open_imagery(
        source,
        predictor.gsd,
        gsd=options.gsd,
        resample=options.resample,
        scale=options.scale,
    ) as imagery:
        if options.vector:
            _check_footprints(source, imagery, options.vector)
        yield imagery


def count_windows(imagery: Imagery, window: int, overlap: float = OVERLAP) -> int:
    """How many windows `predict_blocks` tells its ``progress`` of in all."""
    rows, cols = _axes(imagery, window, overlap)
    return len(rows.starts) * sum(len(cols.covering(*strip)) for strip in _strips(cols.length))


def provenance(predictor: Predictor, source: str, options: Options) -> dict[str, str]:
    """Tags that say what made an output, and of what: with the same tags it is the same output."""
    decisive = {key: value for key, value in asdict(options).items() if key != "batch_size"}
    return {
        **predictor.provenance,
        "ROOFSEG_VERSION": VERSION,
        "ROOFSEG_SOURCE": file_name(source),
        "ROOFSEG_OPTIONS": json.dumps(decisive, sort_keys=True),
    }


def is_finished(predictor: Predictor, source: str, out: Path, options: Options) -> bool:
    """Whether the output of ``source`` is there already, made as it would be made now.

    Its tags say how it was made; an input that is newer makes it out of date.

    Raises:
        UserError: something else is there, which only a user may give up
    """
    shapes = footprints_path(out, options.vector) if options.vector else None
    if not out.exists():
        if shapes and shapes.exists():
            raise UserError(
                f"{shapes}: there is one already, without the raster {out.name} that says what "
                "made it. Say --overwrite to replace it, or choose another --out."
            )
        return False
    wanted = provenance(predictor, source, options)
    with opened(str(out)) as made:
        found = made.tags()
    differs = [key for key in wanted if found.get(key) != wanted[key]]
    if differs:
        key = differs[0]
        raise UserError(
            f"{out}: there is one already, with {key} {found.get(key, 'unknown')!r}; now it is "
            f"{wanted[key]!r}. Say --overwrite to replace it, or choose another --out."
        )
    if shapes and not shapes.exists():
        return False
    local = Path(source).exists()
    return not local or Path(source).stat().st_mtime <= out.stat().st_mtime


def _check_footprints(source: str, imagery: Imagery, vector: Vector) -> None:
    crs = imagery.crs
    if vector.driver == "geojson" and not (crs and (crs.is_projected or crs.is_geographic)):
        raise UserError(
            f"{source}: it has no CRS that is a place on Earth, and GeoJSON is in degrees. Say "
            "--vector gpkg or parquet, which take pixel coordinates, or give the raster its CRS "
            "with `gdal_edit.py -a_srs`."
        )
    if vector.regularise and not find_spec("buildingregulariser"):
        raise UserError(
            "--regularise: the package buildingregulariser is not installed. Install it with `pip "
            "install buildingregulariser`, or leave the option out."
        )
    needs_lengths = vector.min_area_m2 or vector.simplify_m or vector.regularise
    if needs_lengths and crs is None and imagery.gsd is None:
        raise UserError(
            f"{source}: it has no CRS, so lengths and areas are unknown, which --min-area, "
            "--simplify and --regularise need. Say --gsd METRES, the size of a pixel on the ground."
        )


def footprints_path(out: Path, vector: Vector) -> Path:
    """Where the footprints of the output ``out`` lie."""
    return out.with_name(f"{out.stem}.{vector.driver}")


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
    """The first and the end column of each strip: even shares, in whole tiles."""
    count = math.ceil(width / STRIP_COLUMNS)
    step = math.ceil(width / count / TILE) * TILE
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


def _canvas(imagery: Imagery, layer: Layer, folder: Path, tags: Mapping[str, str]) -> Canvas:
    return Canvas(
        folder / f"{layer.dtype}.canvas",
        layer,
        height=imagery.height,
        width=imagery.width,
        crs=imagery.crs,
        transform=imagery.transform,
        tags=tags,
    )


def _values(block: Block, layer: Layer, threshold: float) -> npt.NDArray[Any]:
    """What a layer holds of a block."""
    values = block.probability >= threshold if layer is MASK else block.probability
    held = values.astype(layer.dtype)
    held[~block.valid] = layer.nodata
    return held
