"""Export a trained model as one ONNX file, from 8-bit RGB to probabilities; check it against torch.

The file's metadata holds what `mapping.onnx_predictor` needs: the window's size, the ground
sampling distances (GSD) of the training tiles, and the hash of the weights.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write, remove_scratch
from roofseg.inference import torch_predictor
from roofseg.inference.predictor import Images
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.mapping import onnx_predictor
from roofseg.mapping.cog import write_errors_named
from roofseg.mapping.load_model import check_folder
from roofseg.mapping.onnx_predictor import INPUT, OUTPUT, PACKAGES, TOLERANCE, OnnxMetadata
from roofseg.synthetic.tile import generate_tile


@dataclass(frozen=True)
class Export:
    """An exported model: its window (px) and its largest difference in probability from torch."""

    window: int
    difference: float


def export(
    folder: Path, out: Path, *, tolerance: float = TOLERANCE, overwrite: bool = False
) -> Export:
    """Write the model in ``folder`` (model.safetensors and recipe.json) as ``out``.

    The graph takes ``images`` (B, P, P, 3) uint8 RGB for any B and returns ``probability`` (B, P,
    P) float32 in [0, 1]; P is the size of the patches that the model was trained on. Scaling and
    normalisation are inside. ``metadata_props`` are those of `onnx_predictor.OnnxMetadata`.

    Before the file is moved into place, its results are compared with those of torch, both in
    float32 on the CPU, on noise and on a synthetic scene, in batches of one and of two. For a SAM
    attempt at 1024 px this takes 12 GB of memory, since ONNX has no fused attention.

    Raises:
        UserError: the folder holds no model, ``out`` exists, does not end in .onnx or cannot be
            written, a package is not installed, torch cannot export the model, or a probability
            differs by more than ``tolerance``
    """
    if out.suffix != ".onnx":
        raise UserError(f"{out}: expected a name that ends in .onnx.")
    if out.is_dir():
        raise UserError(f"{out}: a folder; expected the name of a file to write.")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: already exists. Remove it, or use --overwrite.")
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"export to ONNX needs {', '.join(missing)}, not installed here. Run `pip install "
            "'roofseg[onnx]'`."
        )
    check_folder(folder)
    torch_model = torch_predictor.load(folder, device="cpu", precision="32-true")
    with write_errors_named(out):
        remove_scratch(out)
        with atomic_write(out) as scratch:
            _write(torch_model, scratch, folder)
            difference = _difference(torch_model, scratch)
            if not difference <= tolerance:
                raise UserError(
                    f"{folder}: the probabilities of its ONNX file differ from torch's by up to "
                    f"{difference:.2g}; expected at most {tolerance:g}. Nothing was written. "
                    "Raise --tolerance, or try other versions of torch, onnxscript and onnxruntime."
                )
    return Export(torch_model.window, difference)


class _FromImages(nn.Module):
    """A model from 8-bit images to probabilities, as `torch_predictor.TorchPredictor` runs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, P, P, 3) uint8 RGB to (B, P, P)."""
        logits: torch.Tensor = self.model(images.permute(0, 3, 1, 2).float().div(255.0))
        return logits[:, 0].sigmoid()


def _write(predictor: TorchPredictor, path: Path, folder: Path) -> None:
    images = torch.zeros(2, predictor.window, predictor.window, 3, dtype=torch.uint8)
    try:
        # With gradients on, SAM's attention is exported as its plain formula. With gradients off,
        # on a CPU, it is a loop whose length depends on the batch and the machine's threads.
        with torch.enable_grad(), _quiet():
            program = torch.onnx.export(
                _FromImages(predictor.model).eval(),
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(
            f"{folder}: torch {torch.__version__} cannot export this model as ONNX "
            f"({str(error).strip().splitlines()[0]})."
        ) from error
    assert program is not None  # None only if torch writes the file itself
    metadata = OnnxMetadata(predictor.window, predictor.gsd, predictor.provenance)
    program.model.metadata_props.update(metadata.metadata())
    program.save(path)


def _difference(predictor: TorchPredictor, path: Path) -> float:
    """The largest difference in probability between torch and ONNX; NaN if a probability is NaN."""
    exported = onnx_predictor.load(path, device="cpu")
    differences = [
        np.abs(predictor(images) - exported(images)).max() for images in _images(predictor.window)
    ]
    return float(np.max(differences))


def _images(size: int) -> list[Images]:
    """Two batches to compare: a scene (1, P, P, 3); noise and the flipped scene (2, P, P, 3)."""
    scene = generate_tile(seed=0, index=1, size=max(size, 64)).image[:size, :size]
    noise = np.random.default_rng(0).integers(0, 256, scene.shape, dtype=np.uint8)
    return [scene[None], np.stack([noise, scene[::-1]])]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's warnings about its own code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
