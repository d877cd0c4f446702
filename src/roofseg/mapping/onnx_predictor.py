"""Run a model from an ONNX file that `roofseg export` wrote, with onnxruntime and without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from roofseg.core.errors import UserError
from roofseg.inference.predictor import Device, Images, Precision, Probabilities

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # those that an export needs
INPUT, OUTPUT = "images", "probability"
WINDOW, GSD = "roofseg_window", "roofseg_gsd"  # keys in metadata_props
PROVENANCE = "ROOFSEG_"
# Largest difference in a probability from torch. Both compute in float32, in different orders:
# measured 7e-6 for the sample's trained models, 5e-5 for SAM at 1024 px with random weights.
TOLERANCE = 1e-4
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class OnnxMetadata:
    """The description of a model in the ``metadata_props`` of its ONNX file.

    ``provenance`` holds tags whose names begin with ``ROOFSEG_``; for the other fields see
    `roofseg.inference.predictor.Predictor`.
    """

    window: int
    gsd: tuple[float, ...]
    provenance: dict[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """The content of ``metadata_props``; all values are strings."""
        return {WINDOW: str(self.window), GSD: json.dumps(self.gsd), **self.provenance}

    @classmethod
    def read(cls, metadata: dict[str, str]) -> OnnxMetadata:
        """The inverse of `metadata`; KeyError, TypeError or ValueError for other contents."""
        tags = {name: text for name, text in metadata.items() if name.startswith(PROVENANCE)}
        gsd = tuple(float(value) for value in json.loads(metadata[GSD]))
        return cls(int(metadata[WINDOW]), gsd, tags)


class OnnxPredictor:
    """A `roofseg.inference.predictor.Predictor` over an onnxruntime session."""

    def __init__(self, session: Any, about: OnnxMetadata) -> None:
        self.session = session
        self.window, self.gsd = about.window, about.gsd
        self.provenance = {**about.provenance, "ROOFSEG_PRECISION": "32-true"}

    def __call__(self, images: Images) -> Probabilities:
        """The probability of building: (B, P, P, 3) uint8 RGB to (B, P, P) float32 in [0, 1]."""
        (probability,) = self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})
        result: Probabilities = probability
        return result


def load(
    path: Path,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> OnnxPredictor:
    """Load an ONNX file that `roofseg.mapping.onnx_export` wrote.

    For the arguments see `roofseg.mapping.load_model.load_predictor`. "auto" takes CUDA if
    onnxruntime supports it; "mps" is an error.

    Raises:
        UserError: onnxruntime is not installed, or does not support the device or precision; the
            file is missing, not ONNX, or not from `roofseg export`
    """
    if device == "mps" or precision not in ("auto", "32-true"):
        raise UserError(
            f"{path}: device {device}, precision {precision}; an ONNX model runs on cpu or cuda, "
            "and in 32-true. Use these or auto, or name the model's folder."
        )
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        raise UserError(
            f"{path}: onnxruntime, which runs ONNX models, is not installed. Run `pip install "
            "'roofseg[onnx]'` (for CUDA `pip install onnxruntime-gpu`), or name the model's folder "
            "instead."
        ) from None
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an ONNX model. `roofseg export` makes it.")
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors only; they are raised as well
    options.intra_op_num_threads = threads or 0  # 0: onnxruntime decides
    available = onnxruntime.get_available_providers()
    providers = [CUDA, CPU] if CUDA in available and device in ("auto", "cuda") else [CPU]
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise UserError(
            f"{path}: onnxruntime cannot load it; it is damaged or not an ONNX model "
            f"({str(error).strip().splitlines()[0]}). Export it again."
        ) from None
    # onnxruntime may support CUDA but not find its libraries; then it silently uses the CPU.
    if device == "cuda" and CUDA not in session.get_providers():
        raise UserError(
            f"{path}: device cuda, but onnxruntime offers only "
            f"{', '.join(session.get_providers())}. Install onnxruntime-gpu instead, with the CUDA "
            "that it needs, or use cpu."
        )
    return OnnxPredictor(session, _about(session, path))


def _about(session: Any, path: Path) -> OnnxMetadata:
    """Read the file's metadata and check that the graph's inputs and outputs agree with it."""
    try:
        about = OnnxMetadata.read(session.get_modelmeta().custom_metadata_map)
        (images,), (probability,) = session.get_inputs(), session.get_outputs()
        size = about.window
        fits = (
            (images.name, images.type, images.shape[1:])
            == (INPUT, "tensor(uint8)", [size, size, 3])
            and (probability.name, probability.type) == (OUTPUT, "tensor(float)")
            and probability.shape[1:] == [size, size]
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"{path}: an ONNX model, but not one that `roofseg export` wrote; expected images "
            f"(B, P, P, 3) uint8 to probability (B, P, P) float32, with {WINDOW} and {GSD} in its "
            "metadata. Export the model's folder with `roofseg export`."
        )
    return about
