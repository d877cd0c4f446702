"""Write a prior: its weights as safetensors, and its record as JSON.

The record says where the weights come from. Training copies it into recipe.json, so that a model
and its card name every source. It also holds the decisive part of the prior's declaration: where
that changes, training runs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file, write_json
from roofseg.core.weights import write_weights
from roofseg.tiles.licence import Licence

if TYPE_CHECKING:
    import torch

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Origin:
    """Where the weights of a prior come from.

    Attributes:
        source: the package, URL, repository, file or model, in words
        revision: its version or commit, if it has one
        sha256: of the source file, 64 hex digits; None without a file
        encoder: the encoder that the weights are for; None if they fit any
        statistics: mean and standard deviation of the encoder's input, per RGB channel on [0, 1]
        licence: the licence of the weights
        declared: the decisive part of the prior's declaration (`recipe.params.Recipe.declared`)
    """

    source: str
    revision: str | None
    sha256: str | None
    encoder: str | None
    statistics: Statistics | None
    licence: Licence
    declared: Mapping[str, Any] | None = None


def check_finite(name: str, tensor: torch.Tensor, source: str) -> None:
    """Raise UserError, which begins with ``source``, if a tensor has values that are not finite."""
    if tensor.is_floating_point() and (bad := int((~tensor.isfinite()).sum())):
        raise UserError(
            f"{source}: {name} has {bad} of {tensor.numel()} values that are NaN or infinite, so "
            "no model could start from it. Use another checkpoint."
        )


def write_prior(
    folder: Path, name: str, tensors: Mapping[str, torch.Tensor], origin: Origin, **more: Any
) -> Path:
    """Write ``folder``/NAME.safetensors, and beside it NAME.json; return the weights' path.

    ``more`` are further entries of the record.
    """
    path = folder / f"{name}.safetensors"
    write_weights(path, tensors)
    mean, std = origin.statistics or (None, None)
    record = {
        "prior": name,
        "source": origin.source,
        "revision": origin.revision,
        "source_sha256": origin.sha256,
        "sha256": sha256_file(path),
        "encoder": origin.encoder,
        "mean": mean,
        "std": std,
        "licence": asdict(origin.licence),
        "declared": origin.declared,
        **more,
    }
    write_json(path.with_suffix(".json"), record)
    return path


def keep_made(
    folder: Path, name: str, *, declared: Mapping[str, Any], encoder: str, licence: Licence
) -> bool:
    """Keep the weights that were made from the same declaration before, if they are here.

    A machine without the source, such as a user's file or a network, has them from `dvc pull`. Only
    the licence in the record is renewed.

    Returns:
        Whether NAME.safetensors is what NAME.json records, and that was declared like this.
    """
    path = folder / f"{name}.safetensors"
    record_path = path.with_suffix(".json")
    if not (path.is_file() and record_path.is_file()):
        return False
    record = read_json(record_path)
    if (record.get("declared"), record.get("encoder")) != (declared, encoder):
        return False
    if record.get("sha256") != sha256_file(path):
        return False
    write_json(record_path, record | {"licence": asdict(licence)})
    return True
