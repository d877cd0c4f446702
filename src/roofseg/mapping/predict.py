"""Predict whole rasters of any size: masks or probabilities on the raster's own grid.

Reading, inference and writing overlap, and memory does not grow with the raster: see
`roofseg.sliding_window.blocks`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write
from roofseg.inference.predictor import D4, Predictor
from roofseg.mapping.cog import BandSpec, BlockWriter, write_errors_named
from roofseg.mapping.companions import check_unused, remove_companions
from roofseg.mapping.fingerprint import fingerprint
from roofseg.mapping.footprints import Vector, choose_ground, load_regulariser, write_footprints
from roofseg.sliding_window.blocks import Block, Infer, predict_blocks
from roofseg.sliding_window.imagery import Imagery, file_name, open_imagery
from roofseg.sliding_window.windows import OVERLAP
from roofseg.tiles.datum import find_missing_grid
from roofseg.tiles.grid import Grid
from roofseg.tiles.rasters import open_raster
from roofseg.version import VERSION

MASK = BandSpec("uint8", 255, "mode", "building (1)")
PROBABILITY = BandSpec("float32", np.nan, "average", "probability of building")
DISAGREEMENT = BandSpec(
    "float32", np.nan, "average", "standard deviation of the probability between models"
)
GEOJSON_CRS = "EPSG:4326"
INPUT = "ROOFSEG_INPUT"  # the tag that holds the input's fingerprint


@dataclass(frozen=True)
class Options:
    """The options that, with the model, determine the result for a raster.

    Args:
        output: "mask", uint8 {0, 1} with nodata 255; or "probability", float32 in [0, 1] with
            nodata NaN
        threshold: lowest probability that counts as building
        overlap: overlap of neighbouring windows, as a share of their side, [0, 0.5]
        tta: average over the eight symmetries of the square
        batch_size: windows per batch, which changes memory, speed and rounding; None for as many
            as fit `roofseg.sliding_window.blocks.BATCH_PIXELS`, but at least one
        gsd: metres per pixel, in place of the input's own
        resample: resample inputs to the GSD that the model was trained on
        scale: the values that become 0 and 255, for an input that is not 8-bit
        disagreement: write a second raster with the standard deviation between the models of an
            `roofseg.mapping.ensemble.Ensemble`: float32 in [0, 0.5], with nodata NaN
        vector: options of the footprints to write beside the raster; None for no footprints
    """

    output: Literal["mask", "probability"] = "mask"
    threshold: float = 0.5
    overlap: float = OVERLAP
    tta: bool = False
    batch_size: int | None = None
    gsd: float | None = None
    resample: bool = False
    scale: tuple[float, float] | None = None
    disagreement: bool = False
    vector: Vector | None = None


def predict_raster(
    predictor: Predictor,
    source: str,
    out: Path,
    options: Options,
    *,
    infer: Infer | None = None,
    progress: Callable[[int], None] = lambda windows: None,
) -> None:
    """Predict one raster and write it as a cloud-optimised GeoTIFF, and what else is wanted.

    Args:
        predictor: the model; its GSD and provenance are used even if ``infer`` runs another copy.
        source: a path or address that GDAL can open: a file, /vsi..., s3:// or https://.
        out: the GeoTIFF; for the names of the other files see `outputs_of`. After an error,
            existing files are unchanged.
        options: see `Options`; ``infer`` must apply ``tta`` itself (`inference.predictor.D4`).
        infer: see `roofseg.sliding_window.blocks.predict_blocks`; None runs ``predictor`` here.
        progress: see `roofseg.sliding_window.blocks.predict_blocks`.

    Raises:
        UserError: the input cannot be read or predicted as it is, or the output cannot be written
    """
    infer = infer or partial(map, D4(predictor) if options.tta else predictor)
    tags = provenance(predictor, source, options)
    made_from = {INPUT: fingerprint(source)}  # before it is read, so that a later change is noticed
    wanted = MASK if options.output == "mask" else PROBABILITY
    layers = [wanted]
    if options.vector and wanted is MASK:
        layers.append(PROBABILITY)
    if options.disagreement:
        layers.append(DISAGREEMENT)
    beside = outputs_of(out, options)[1:]
    with (
        open_input(predictor, source, options) as imagery,
        write_errors_named(out),
        ExitStack() as renaming,
    ):
        # Renamed in reverse order, so a raster never appears without the files beside it.
        scratch = {path: renaming.enter_context(atomic_write(path)) for path in [*beside, out]}
        folder = scratch[out].parent
        with ExitStack() as open_writers:
            writers = {
                layer: open_writers.enter_context(
                    BlockWriter(
                        folder / f"{number}.blocks",
                        layer,
                        height=imagery.height,
                        width=imagery.width,
                        crs=imagery.crs,
                        transform=imagery.transform,
                        tags=tags | made_from,
                    )
                )
                for number, layer in enumerate(layers)
            }
            blocks = predict_blocks(
                imagery,
                predictor.window,
                infer,
                overlap=options.overlap,
                batch_size=options.batch_size,
                progress=progress,
            )
            for block in open_writers.enter_context(closing(blocks)):
                for layer, writer in writers.items():
                    writer.write(block.row, block.col, _values(block, layer, options.threshold))
        writers[wanted].write_cog(scratch[out])
        if options.disagreement:
            writers[DISAGREEMENT].write_cog(scratch[disagreement_of(out)])
        if options.vector:
            footprints = footprints_of(out, options.vector)
            with write_errors_named(footprints):
                write_footprints(
                    writers[PROBABILITY].path,
                    scratch[footprints],
                    options.vector,
                    gsd=imagery.gsd,
                    threshold=options.threshold,
                    provenance=tags,
                )
        for path in scratch:
            check_unused(path)
        # Beside the new raster, old files would look up to date. They go before their companions,
        # which hold changes that would then be missing from them.
        for path in beside:
            path.unlink(missing_ok=True)
        if not options.disagreement:
            _remove_disagreement(disagreement_of(out))
        for path in scratch:
            remove_companions(path)


@contextmanager
def open_input(predictor: Predictor, source: str, options: Options) -> Iterator[Imagery]:
    """Open a raster to predict; UserError if it cannot be predicted as it is.

    Also raised if its header shows that its footprints could not be written afterwards.
    """
    with open_imagery(
        source,
        predictor.gsd,
        gsd=options.gsd,
        resample=options.resample,
        scale=options.scale,
    ) as imagery:
        if options.vector:
            if options.vector.regularise:
                load_regulariser()
            grid = Grid(imagery.height, imagery.width, imagery.crs, imagery.transform)
            choose_ground(source, grid, options.vector, imagery.gsd)
            imagery.notes += _offset(grid, options.vector)
        yield imagery


def _offset(grid: Grid, vector: Vector) -> list[str]:
    """A remark if footprints in GeoJSON may be off, whose CRS need not be the raster's."""
    if vector.driver != "geojson" or grid.crs is None or grid.transform is None:
        return []
    missing = find_missing_grid(grid.crs.to_string(), GEOJSON_CRS, grid)
    if missing is None or not missing.exceeds_a_pixel:
        return []
    return [
        f"in GeoJSON, which is in {GEOJSON_CRS}, footprints {missing}. {missing.remedy}. Other "
        "formats keep the coordinates of the raster"
    ]


def provenance(predictor: Predictor, source: str, options: Options) -> dict[str, str]:
    """Tags of an output: its model, input and options. Equal tags mean equal outputs."""
    decisive = {key: value for key, value in asdict(options).items() if key != "batch_size"}
    return {
        **predictor.provenance,
        "ROOFSEG_VERSION": VERSION,
        "ROOFSEG_SOURCE": file_name(source),
        "ROOFSEG_OPTIONS": json.dumps(decisive, sort_keys=True),
    }


def is_finished(predictor: Predictor, source: str, out: Path, options: Options) -> bool:
    """Whether the output of ``source`` is already complete, made by the same model and options.

    Compares the output's tags. An output is out of date if its input has changed (see
    `roofseg.mapping.fingerprint`). Changes of an input that is no local file are not noticed.

    Raises:
        UserError: another file is in its place, which is only replaced with --overwrite; or the
            input cannot be read
    """
    beside = outputs_of(out, options)[1:]
    if not out.exists():
        for path in beside:
            if path.exists():
                raise UserError(
                    f"{path}: already exists, without the raster {out.name}, whose tags would say "
                    "what made it. Use --overwrite to replace it, or choose another --out."
                )
        return False
    wanted = provenance(predictor, source, options)
    try:
        with open_raster(out) as existing:
            found = existing.tags()
    except UserError as error:
        raise UserError(
            f"{out}: already exists, and is no raster or a damaged one. Use --overwrite to replace "
            "it, or choose another --out."
        ) from error
    differs = [key for key in wanted if found.get(key) != wanted[key]]
    if differs:
        key = differs[0]
        was, now = _without_common(found.get(key, "unknown"), wanted[key])
        raise UserError(
            f"{out}: already exists, with {key} {was!r}; expected {now!r}. Use --overwrite to "
            "replace it, or choose another --out."
        )
    if not all(path.exists() for path in beside):
        return False
    now = fingerprint(source)
    return not now or found.get(INPUT) == now


def _without_common(*texts: str) -> Sequence[str]:
    """Reduce two JSON objects to the items that differ; return other texts unchanged."""
    try:
        one, other = map(json.loads, texts)
        pairs = ((one, other), (other, one))
        return [
            json.dumps({key: a[key] for key in a if key not in b or a[key] != b[key]})
            for a, b in pairs
        ]
    except (ValueError, TypeError):
        return texts


def remove_leftovers(folder: Path, outs: Iterable[Path], options: Options) -> None:
    """Remove the temporary folders that killed runs left in ``folder`` for the outputs ``outs``."""
    names = {path.name for out in outs for path in outputs_of(out, options)}
    with write_errors_named(folder):
        for scratch in list(folder.glob(".*.*/")):  # list the folder once, not for every output
            if scratch.name[1:].rpartition(".")[0] in names:
                shutil.rmtree(scratch)


def outputs_of(out: Path, options: Options) -> list[Path]:
    """The files that belong to the output ``out``: the raster, and what is wanted beside it."""
    footprints = [footprints_of(out, options.vector)] if options.vector else []
    disagreement = [disagreement_of(out)] if options.disagreement else []
    return [out, *footprints, *disagreement]


def footprints_of(out: Path, vector: Vector) -> Path:
    """The file of the footprints of the output ``out``: the same name with another suffix."""
    return out.with_name(f"{out.stem}.{vector.driver}")


def disagreement_of(out: Path) -> Path:
    """The raster of the disagreement between models, of the output ``out``."""
    return out.with_name(f"{out.stem}.disagreement.tif")


def _remove_disagreement(path: Path) -> None:
    """Remove the raster of the disagreement between earlier models, if that is what it is."""
    if not path.is_file():
        return
    with contextlib.suppress(UserError):
        with open_raster(path) as old:
            ours = old.descriptions == (DISAGREEMENT.description,)
        if ours:
            path.unlink()
            remove_companions(path)


def _values(block: Block, layer: BandSpec, threshold: float) -> npt.NDArray[Any]:
    """The values of a block for a layer: building or probability, nodata where not valid."""
    values: npt.NDArray[Any] | None = block.probability
    if layer is MASK:
        values = block.probability >= threshold
    elif layer is DISAGREEMENT:
        values = block.disagreement
    assert values is not None  # a predictor of disagreement gives one
    result = values.astype(layer.dtype)
    result[~block.valid] = layer.nodata
    return result
