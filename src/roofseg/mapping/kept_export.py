"""The ONNX file of a model that is made once, and kept beside the model's folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.terminal import warn
from roofseg.inference.predictor import Device, Precision, read_record
from roofseg.mapping import onnx_predictor
from roofseg.mapping.onnx_predictor import PACKAGES, OnnxPredictor


def is_faster(device: Device, precision: Precision) -> bool:
    """Whether onnxruntime should run a model on this device: it is here, and likely the faster.

    That is on CPUs without bfloat16 in hardware, where torch computes in float32 as well.
    `benchmarks.predicting` compares the two.
    """
    if precision != "auto" or any(importlib.util.find_spec(name) is None for name in PACKAGES):
        return False
    from roofseg.models.device import resolve_device, resolve_precision  # torch: seconds

    return resolve_device(device) == "cpu" and resolve_precision("auto", "cpu") == "32-true"


def load(
    folder: Path,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> OnnxPredictor:
    """Load the kept ONNX file of a model's folder; make it if it is missing or of other weights.

    The file is .NAME.onnx beside the folder NAME. For the arguments see
    `roofseg.mapping.load_model.load_predictor`.

    Raises:
        UserError: as `roofseg.mapping.onnx_export.export` and `onnx_predictor.load`
    """
    folder = folder.resolve()
    path = folder.with_name(f".{folder.name}.onnx")
    wanted = read_record(folder).provenance(folder)
    if path.exists():
        try:
            kept = onnx_predictor.load(path, device=device, precision=precision, threads=threads)
        except UserError:  # damaged, or not ours
            kept = None
        if kept and wanted.items() <= kept.provenance.items():
            return kept
    warn(f"{folder}: exporting it once for onnxruntime, as {path}")
    from roofseg.mapping.onnx_export import export

    export(folder, path, overwrite=True)
    return onnx_predictor.load(path, device=device, precision=precision, threads=threads)
