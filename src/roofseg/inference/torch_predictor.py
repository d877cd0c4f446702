"""The predictor that runs a trained model with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from roofseg.core.errors import UserError
from roofseg.inference.predictor import Device, Images, Precision, Probabilities, read_record
from roofseg.models.device import (
    full_float32,
    is_out_of_memory,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from roofseg.models.roof_model import RoofModel, build_model, load_model

HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


Model = TypeVar("Model", bound=nn.Module)


class TorchPredictor(Generic[Model]):
    """A `roofseg.inference.predictor.Predictor` that runs a torch module.

    Args:
        model: maps (B, 3, P, P) float RGB in [0, 1] to (B, 1, P, P) logits; it is put into eval
            mode and moved to ``device``
        window, gsd, provenance: see `roofseg.inference.predictor.Predictor`
        device: ``cpu``, ``cuda`` or ``mps``
        precision: ``32-true`` (the precision of scores, see `roofseg.models.device.full_float32`),
            ``bf16-mixed`` or ``16-mixed``

    A call raises UserError if the batch does not fit into memory.
    """

    def __init__(
        self,
        model: Model,
        *,
        window: int,
        gsd: tuple[float, ...] = (),
        provenance: dict[str, str] | None = None,
        device: str = "cpu",
        precision: str = "32-true",
    ) -> None:
        self.window, self.gsd = window, gsd
        self.provenance = {**(provenance or {}), "ROOFSEG_PRECISION": precision}
        self.model = model.to(device).to(memory_format=torch.channels_last).eval()
        self._device, self._half = device, HALVES.get(precision)

    def __call__(self, images: Images) -> Probabilities:
        # For half precision, the inner context turns autocast on again.
        with (
            torch.inference_mode(),
            full_float32(self._device),
            torch.autocast(self._device, self._half, enabled=self._half is not None),
        ):
            try:
                batch = torch.from_numpy(images).to(self._device)  # B, P, P, 3: channels last
                logits = self.model(batch.permute(0, 3, 1, 2).float().div_(255.0))
                probabilities: Probabilities = logits[:, 0].float().sigmoid().cpu().numpy()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise UserError(
                    f"{len(images)} windows of {self.window} px at a time do not fit into the "
                    f"memory of {self._device}. Use a smaller batch (`roofseg predict "
                    "--batch-size`; `batch_size` in params.yaml for evaluation), or the CPU "
                    "(`--device cpu`; `device: cpu`)."
                ) from None
        return probabilities


def load(
    folder: Path,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> TorchPredictor[RoofModel]:
    """Load a model from its folder, which holds model.safetensors and recipe.json.

    For the arguments see `roofseg.mapping.load_model.load_predictor`; None for ``threads`` leaves
    torch's threads unchanged.

    Raises:
        UserError: weights or recipe are missing or do not fit each other, or the device or the
            precision is not available
    """
    record = read_record(folder)
    provenance = record.provenance(folder)
    try:
        resolved_device = resolve_device(device)
        resolved_precision = resolve_precision(precision, resolved_device)
        model = build_model(
            record.recipe.architecture,
            record.recipe.encoder,
            dropout=record.recipe.dropout,
            patch_size=record.patch_size,
            statistics=record.recipe.statistics,
        )
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    load_model(folder / "model.safetensors", model)
    if resolved_device == "cpu":
        keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    return TorchPredictor(
        model,
        window=record.patch_size,
        gsd=tuple(sorted(record.gsd)),
        provenance=provenance,
        device=resolved_device,
        precision=resolved_precision,
    )
