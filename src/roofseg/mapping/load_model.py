"""Load a trained model for prediction, from its folder or an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.terminal import warn
from roofseg.inference.predictor import Backend, Device, Precision, Predictor
from roofseg.mapping import kept_export
from roofseg.mapping.ensemble import Ensemble


def load_predictor(
    path: Path,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    backend: Backend = "torch",
) -> Predictor:
    """Load a model for prediction.

    Args:
        path: a model's folder, with model.safetensors and recipe.json; or a .onnx file that
            `roofseg export` wrote.
        device: where the model runs; "auto" takes the best available device.
        precision: "auto" takes the fastest that the device supports in hardware; "32-true" is the
            precision for scores (see `roofseg.models.device`), and the only one for ONNX models.
        threads: number of CPU threads (with torch, of the whole process); None for one per core.
        backend: what runs a model's folder. "onnxruntime" exports it once (see
            `roofseg.mapping.kept_export`), and "auto" does so where that is faster and possible.

    Raises:
        UserError: the path, weights or recipe are missing; the weights belong to another
            architecture or are not safetensors (pickles are never read); or the device or the
            precision is not available.
    """
    if path.suffix.lower() == ".onnx":
        from roofseg.mapping import onnx_predictor

        return onnx_predictor.load(path, device=device, precision=precision, threads=threads)
    check_folder(path, or_else=", or a .onnx file")
    if backend == "onnxruntime" or (backend == "auto" and kept_export.is_faster(device, precision)):
        try:
            return kept_export.load(path, device=device, precision=precision, threads=threads)
        except UserError as error:
            if backend == "onnxruntime":
                raise
            warn(f"{error} torch runs the model instead (--backend torch).")
    from roofseg.inference import torch_predictor

    return torch_predictor.load(path, device=device, precision=precision, threads=threads)


def load_predictors(
    paths: Sequence[Path],
    *,
    disagreement: bool = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    backend: Backend = "torch",
) -> Predictor:
    """Load one model, or several as one (see `roofseg.mapping.ensemble.Ensemble`).

    For the other arguments see `load_predictor`.

    Raises:
        UserError: as `load_predictor` and `Ensemble`; or the disagreement of one model is wanted
    """
    if disagreement and len(paths) == 1:
        raise UserError(
            f"--disagreement: found only --model {paths[0]}; expected two models or more, each "
            "after its own --model"
        )
    models = [
        load_predictor(path, device=device, precision=precision, threads=threads, backend=backend)
        for path in paths
    ]
    if len(paths) == 1:
        return models[0]
    return Ensemble([*zip(paths, models, strict=True)], disagreement=disagreement)


def check_folder(path: Path, or_else: str = "") -> None:
    """Raise UserError unless a model's folder is at ``path``.

    ``or_else`` is added to the message: what the user can name in place of a folder.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UserError(
            f"{path}: expected a model, found {found}. Name a folder that holds model.safetensors "
            "and recipe.json, such as models/unet_imagenet (`dvc repro` makes them, `dvc pull "
            f"models` gets them){or_else}."
        )
