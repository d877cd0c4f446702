"""Files of weights: safetensors, written the same way every time and loaded strictly.

torch is imported inside the functions: what only names weights (the check of the parameters that
every stage makes at its start) must not wait seconds for it.
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

SHOWN = 3  # names quoted in an error: enough to recognise another model's naming


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors as safetensors, the same bytes for the same tensors; whole or not at all.

    Any device and memory format will do. No metadata: safetensors writes several metadata keys in
    an order that differs between runs.
    """
    from safetensors.torch import save_file

    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with atomic_write(path) as scratch:
        save_file(plain, scratch)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; UserError where it is missing or something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: expected a safetensors file ({error}). Remove it and run `dvc repro`."
        ) from None


def load_weights(module: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy ``tensors`` into ``module``; every name and shape must match, or nothing is copied.

    ``source`` opens the UserError of a mismatch: the file, and what it was meant for.
    """
    expected = module.state_dict()
    problems = []
    if missing := sorted(expected.keys() - tensors.keys()):
        problems.append(f"lacks {_quoted(missing)}")
    if unexpected := sorted(tensors.keys() - expected.keys()):
        problems.append(f"has unexpected {_quoted(unexpected)}")
    misfits = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    if misfits:
        problems.append(f"has {len(misfits)} tensors of another shape: {misfits[0]}")
    if problems:
        raise UserError(f"{source}: the file {'; '.join(problems)}")
    module.load_state_dict(dict(tensors), strict=True)


def _quoted(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
