"""Map the roofs in rasters: masks, probabilities or footprints.

Rasters may have any size. Writes DIR/NAME.tif for each input NAME.*: a cloud-optimised GeoTIFF on
the input's grid, uint8 with 1 for building, 0 for background and 255 for no data; with
--probability float32 in [0, 1], NaN for no data. With --vector, footprints are written beside it.
Outputs that the same model and options have already made are skipped: after a stop, the same
command continues.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from roofseg.commands.arguments import count, local_path, number, raster_name
from roofseg.core.errors import UserError, raise_all
from roofseg.core.progress import bar
from roofseg.core.terminal import warn
from roofseg.inference.predictor import Backend, Device, Precision, Predictor
from roofseg.mapping.cog import NotWrittenError
from roofseg.mapping.companions import check_unused
from roofseg.mapping.fingerprint import input_files
from roofseg.mapping.footprints import Vector
from roofseg.mapping.load_model import load_predictors
from roofseg.mapping.predict import (
    Options,
    is_finished,
    open_input,
    outputs_of,
    predict_raster,
    remove_leftovers,
)
from roofseg.mapping.ray_workers import WorkersLostError, workers
from roofseg.mapping.vector_files import Driver
from roofseg.sliding_window.blocks import Infer, count_windows
from roofseg.sliding_window.imagery import list_inputs, output_stem
from roofseg.sliding_window.windows import OVERLAP


@dataclass(frozen=True)
class Job:
    """An input to predict, its output, and its size."""

    source: str
    out: Path
    windows: int
    megapixels: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        type=raster_name,
        metavar="INPUT",
        help="a raster, a folder of them, a VRT, an s3:// or https:// address, or one raster of a "
        "file that holds several, such as GPKG:city.gpkg:TABLE",
    )
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        type=local_path,
        help="a model's folder, such as models/unet_imagenet, or a .onnx file; of several models, "
        "each after its own --model, the mean of the probabilities counts",
    )
    parser.add_argument(
        "--out", required=True, type=local_path, metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing outputs, also those of other models and options",
    )
    result = parser.add_argument_group("the result")
    result.add_argument(
        "--probability", action="store_true", help="write probabilities instead of masks"
    )
    result.add_argument(
        "--threshold",
        type=number(1e-6, 1),
        default=0.5,
        metavar="P",
        help="lowest probability that counts as building (default: %(default)s, as for scores)",
    )
    result.add_argument(
        "--disagreement",
        action="store_true",
        help="also write DIR/NAME.disagreement.tif, the standard deviation of the probability "
        "between the models (float32, NaN for no data)",
    )
    result.add_argument(
        "--vector",
        choices=get_args(Driver),
        help="also write footprints, as polygons in this format",
    )
    result.add_argument(
        "--min-area",
        type=number(0),
        default=0.0,
        metavar="M2",
        help="leave out footprints smaller than M2 square metres (default: %(default)g)",
    )
    result.add_argument(
        "--simplify",
        type=number(0),
        default=0.0,
        metavar="M",
        help="simplify outlines, by at most M metres (default: %(default)g, outlines of pixels)",
    )
    result.add_argument(
        "--regularise",
        action="store_true",
        help="straighten walls and square corners (needs the extra `regularise`)",
    )
    grid = parser.add_argument_group("the input")
    grid.add_argument(
        "--gsd",
        type=number(1e-6),
        metavar="M",
        help="metres per pixel, if the inputs state none or a wrong value",
    )
    grid.add_argument(
        "--resample",
        action="store_true",
        help="resample inputs to the GSD that the model was trained on; outputs are on that grid",
    )
    grid.add_argument(
        "--scale",
        nargs=2,
        type=number(-math.inf),
        metavar=("LOW", "HIGH"),
        help="the values that become 0 and 255, if the inputs are not 8-bit",
    )
    how = parser.add_argument_group("inference")
    how.add_argument(
        "--overlap",
        type=number(0, 0.5),
        default=OVERLAP,
        metavar="SHARE",
        help="overlap of neighbouring windows, as a share of their side (default: %(default)s)",
    )
    how.add_argument(
        "--tta",
        action="store_true",
        help="average over the 8 symmetries of a square, which takes 8 times as long",
    )
    how.add_argument(
        "--batch-size",
        type=count,
        metavar="N",
        help="windows per batch (default: as many as fit a megapixel)",
    )
    how.add_argument(
        "--device",
        choices=get_args(Device),
        default="auto",
        help="where the model runs (default: %(default)s, the best available)",
    )
    how.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="default: %(default)s, the fastest that the device supports in hardware",
    )
    how.add_argument(
        "--backend",
        choices=get_args(Backend),
        default="auto",
        help="what runs a model's folder (default: %(default)s, onnxruntime on CPUs without "
        "bfloat16 if it is installed, otherwise torch)",
    )
    many = parser.add_argument_group("many processes or machines (needs the extra `ray`)")
    many.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="run the model in this process or in workers of Ray (default: %(default)s)",
    )
    many.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="number of workers of Ray (default: one per GPU, or per machine without GPUs)",
    )
    many.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="address of a Ray cluster (default: start Ray on this machine)",
    )


def main(args: argparse.Namespace) -> None:
    options = read_options(args)
    check_folder(args.out)
    outputs = name_outputs(list_inputs(args.inputs), args.out, options)
    folders = [Path(name) for name in args.inputs if Path(name).is_dir()]
    if args.out.is_dir() and any(args.out.samefile(folder) for folder in folders):
        raise UserError(
            f"--out {args.out}: is a folder of inputs, so outputs would be inputs of the next run. "
            "Choose another --out."
        )
    with engine(args) as (predictor, infer):
        jobs = check(predictor, outputs, options, overwrite=args.overwrite)
        remove_leftovers(args.out, outputs, options)
        failed = run(predictor, jobs, options, infer)
    if failed:
        raise UserError("\n".join(failed))


def check_folder(out: Path) -> None:
    """Raise UserError if something else is in place of the folder ``out`` or of one above it."""
    for path in reversed((out, *out.parents)):
        if path.is_dir():
            continue
        if path.is_symlink():
            found = f"is a link to {path.readlink()}, which is no folder"
        elif path.exists():
            found = "is a file"
        else:
            return
        raise UserError(
            f"--out {out}: {'it' if path == out else path} {found}; expected a folder to write to. "
            "Choose another --out, or move that away."
        )


def read_options(args: argparse.Namespace) -> Options:
    """Make the options from the arguments; UserError if two contradict each other."""
    if args.scale and not args.scale[0] < args.scale[1]:
        low, high = args.scale
        raise UserError(f"--scale {low:g} {high:g}: expected LOW < HIGH")
    shaping = {"--min-area": args.min_area, "--simplify": args.simplify}
    unused = [key for key, value in {**shaping, "--regularise": args.regularise}.items() if value]
    if unused and not args.vector:
        raise UserError(f"{unused[0]}: needs --vector {'|'.join(get_args(Driver))}")
    vector = Vector(args.vector, args.min_area, args.simplify, args.regularise)
    return Options(
        output="probability" if args.probability else "mask",
        threshold=args.threshold,
        overlap=args.overlap,
        tta=args.tta,
        batch_size=args.batch_size,
        gsd=args.gsd,
        resample=args.resample,
        scale=tuple(args.scale) if args.scale else None,
        disagreement=args.disagreement,
        vector=vector if args.vector else None,
    )


@contextmanager
def engine(args: argparse.Namespace) -> Iterator[tuple[Predictor, Infer | None]]:
    """The model, and the function that runs batches on it (None: call the model itself)."""
    if args.engine == "ray":
        with workers(
            args.model,
            args.workers,
            address=args.address,
            device=args.device,
            precision=args.precision,
            tta=args.tta,
            disagreement=args.disagreement,
            backend=args.backend,
        ) as pool:
            yield pool, pool.infer
        return
    for option in ("workers", "address"):
        if getattr(args, option):
            raise UserError(f"--{option}: needs --engine ray")
    predictor = load_predictors(
        args.model,
        disagreement=args.disagreement,
        device=args.device,
        precision=args.precision,
        backend=args.backend,
    )
    yield predictor, None


def name_outputs(sources: Sequence[str], folder: Path, options: Options) -> dict[Path, str]:
    """Map output rasters to inputs; UserError if two inputs share an output."""
    outputs: dict[Path, str] = {}
    makers: dict[Path, str] = {}
    for source in sources:
        out = folder / f"{output_stem(source)}.tif"
        for path in outputs_of(out, options):
            if path in makers:
                raise UserError(
                    f"{source}: its output {path} is also the output of {makers[path]}. Rename one "
                    "of the inputs, or use two folders for --out."
                )
            makers[path] = source
        outputs[out] = source
    return outputs


def check(
    predictor: Predictor, outputs: dict[Path, str], options: Options, *, overwrite: bool
) -> list[Job]:
    """Check all inputs and outputs before predicting; UserError naming all that fail."""
    jobs, problems = [], []
    for out, source in outputs.items():
        try:
            for path in outputs_of(out, options):
                if path.is_dir():
                    raise UserError(f"{path}: is a folder; expected a file. Move it away.")
                if path.exists() and any(is_same(path, file) for file in input_files(source)):
                    raise UserError(
                        f"{source}: the output {path} would replace this input. Choose another "
                        "--out."
                    )
            if not overwrite and is_finished(predictor, source, out, options):
                print(f"{out}: already finished, skipped")
                continue
            for path in outputs_of(out, options):
                check_unused(path)
            with open_input(predictor, source, options) as imagery:
                for note in imagery.notes:
                    warn(f"{source}: {note}")
                windows = count_windows(imagery, predictor.window, options.overlap)
                megapixels = imagery.height * imagery.width / 1e6
            jobs.append(Job(source, out, windows, megapixels))
        except UserError as error:
            problems.append(str(error))
    raise_all(problems)
    return jobs


def is_same(path: Path, name: str) -> bool:
    """Whether ``path`` is the file ``name``, which may be no local file."""
    try:
        return path.samefile(name)
    except OSError:
        return False


def run(
    predictor: Predictor, jobs: Sequence[Job], options: Options, infer: Infer | None
) -> list[str]:
    """Predict all inputs, even if one of them fails; returns the errors."""
    failed = []
    with bar("Predicting", sum(job.windows for job in jobs)) as shown:
        done = 0
        for job in jobs:
            shown.update(description=job.out.name)
            start = time.perf_counter()
            try:
                predict_raster(
                    predictor,
                    job.source,
                    job.out,
                    options,
                    infer=infer,
                    progress=shown.advance,
                )
                seconds = time.perf_counter() - start
                print(f"{job.out}: {job.megapixels:.1f} MP in {seconds:.1f} s", flush=True)
            except (NotWrittenError, WorkersLostError):
                raise
            except UserError as error:
                failed.append(str(error))
            done += job.windows
            shown.update(done=done)
    return failed
