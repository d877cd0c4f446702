"""Weights files: safetensors with reproducible bytes, loaded strictly.

The functions import torch themselves, so that a module that only imports this one does not wait
seconds for torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN = 3  # names that an error quotes: enough to recognise the naming of another model


def write_weights(
    path: Path, tensors: Mapping[str, torch.Tensor], *, durable: bool = False
) -> None:
    """Write named tensors as safetensors; the same tensors give the same bytes.

    Tensors may lie on any device, in any memory format, and share memory. The file is written with
    `roofseg.core.files.atomic_write`, which explains ``durable``. It has no metadata: safetensors
    writes several metadata keys in an order that differs between runs.
    """
    from safetensors.torch import save

    plain: dict[str, torch.Tensor] = {}
    stored = set()  # safetensors refuses tensors that share memory, as tied weights do
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if storage in stored else tensor
        stored.add(storage)
    with atomic_write(path, durable=durable) as scratch:
        # Not save_file: its errors hide the OSError of a full disk.
        scratch.write_bytes(save(plain))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, tensors by name; UserError if it is missing or not safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from None
    except SafetensorError as error:
        raise UserError(
            f"{path}: expected a safetensors file ({error}). Remove it and run `dvc repro`."
        ) from None


def load_weights(module: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy ``tensors`` into ``module``; if a name or shape does not match, copy nothing.

    Raises UserError for a mismatch. ``source`` begins its message: it names the file and says what
    the file was expected to hold.
    """
    expected = module.state_dict()
    problems = []
    if missing := sorted(expected.keys() - tensors.keys()):
        problems.append(f"lacks {_quote(missing)}")
    if unexpected := sorted(tensors.keys() - expected.keys()):
        problems.append(f"has unexpected {_quote(unexpected)}")
    mismatches = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    if mismatches:
        problems.append(f"has {len(mismatches)} tensors of another shape: {mismatches[0]}")
    if problems:
        raise UserError(f"{source}: the file {'; '.join(problems)}")
    module.load_state_dict(dict(tensors), strict=True)


def _quote(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
