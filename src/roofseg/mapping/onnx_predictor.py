"""A model in an ONNX file that `roofseg export` wrote, run by onnxruntime; needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from roofseg.core.errors import UserError
from roofseg.inference.predictor import Device, Images, Precision, Probabilities

INPUT, OUTPUT = "images", "probability"
WINDOW, GSD = "roofseg_window", "roofseg_gsd"  # in metadata_props, beside the provenance
PROVENANCE = "ROOFSEG_"
# How far a probability may be from torch's. Both compute in float32 and round in another order: by
# up to 7e-6 apart for the sample's trained models, 5e-5 for SAM at 1024 px with random weights.
TOLERANCE = 1e-4
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class About:
    """What an ONNX file says of its model in ``metadata_props``.

    Attributes:
        window: side of a window in pixels
        gsd: ground sampling distances trained on, in metres per pixel
        provenance: tags whose names begin with ROOFSEG_
    """

    window: int
    gsd: tuple[float, ...]
    provenance: dict[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """As ``metadata_props``: texts alone."""
        return {WINDOW: str(self.window), GSD: json.dumps(self.gsd), **self.provenance}

    @classmethod
    def read(cls, metadata: dict[str, str]) -> About:
        """The inverse; KeyError, TypeError or ValueError for anything else."""
        tags = {name: text for name, text in metadata.items() if name.startswith(PROVENANCE)}
        gsd = tuple(float(each) for each in json.loads(metadata[GSD]))
        return cls(int(metadata[WINDOW]), gsd, tags)


class OnnxPredictor:
    """A `roofseg.inference.predictor.Predictor` over an onnxruntime session."""

    def __init__(self, session: Any, about: About) -> None:
        self.session = session
        self.window, self.gsd = about.window, about.gsd
        self.provenance = {**about.provenance, "ROOFSEG_PRECISION": "32-true"}

    def __call__(self, images: Images) -> Probabilities:
        """The probability of building: (B, P, P, 3) uint8 RGB to (B, P, P) float32 in [0, 1]."""
        (probability,) = self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})
        found: Probabilities = probability
        return found


def load(
    path: Path,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> OnnxPredictor:
    """Load an ONNX file that `roofseg.mapping.onnx_export` wrote.

    Args:
        path: the file
        device: "auto" takes CUDA where onnxruntime has it; there is no "mps"
        precision: "auto" is "32-true", and there is no other
        threads: of the CPU; None for as many as there are cores

    Raises:
        UserError: onnxruntime is not installed, or has not the device or precision that is asked
            for; the file is missing, no ONNX, or another model's
    """
    if device == "mps" or precision not in ("auto", "32-true"):
        raise UserError(
            f"{path}: device {device}, precision {precision}; an ONNX model runs on cpu or cuda, "
            "and in 32-true. Say these or auto, or name the model's folder."
        )
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        raise UserError(
            f"{path}: onnxruntime, which runs ONNX models, is not installed. Run `pip install "
            "onnxruntime` (onnxruntime-gpu for CUDA), or name the model's folder instead."
        ) from None
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an ONNX model. `roofseg export` makes it.")
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors; they are raised as well
    options.intra_op_num_threads = threads or 0  # 0: it decides
    there = onnxruntime.get_available_providers()
    providers = [CUDA, CPU] if CUDA in there and device in ("auto", "cuda") else [CPU]
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base but this
        raise UserError(
            f"{path}: onnxruntime cannot load it; it is damaged or no ONNX model "
            f"({str(error).strip().splitlines()[0]}). Export it again."
        ) from None
    # It may have CUDA and yet not find its libraries: then it goes on without.
    if device == "cuda" and CUDA not in session.get_providers():
        raise UserError(
            f"{path}: device cuda, but onnxruntime has {', '.join(session.get_providers())} alone. "
            "Install onnxruntime-gpu in its place, with the CUDA that it needs, or say cpu."
        )
    return OnnxPredictor(session, _about(session, path))


def _about(session: Any, path: Path) -> About:
    """What the file says of itself, held against its graph's interface."""
    try:
        about = About.read(session.get_modelmeta().custom_metadata_map)
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
            f"{path}: an ONNX model, but none that `roofseg export` wrote; expected images "
            f"(B, P, P, 3) uint8 to probability (B, P, P) float32, with {WINDOW} and {GSD} in its "
            "metadata. Export the model's folder with it."
        )
    return about
