"""Which device trains, and in which precision."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from roofseg.errors import UserError


def resolve_device(device: str) -> str:
    """The device to use: "auto" is the best there is (cuda, then mps, then cpu).

    Raises UserError for a device that is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, there in available.items() if there)
    if not available[device]:
        raise UserError(
            f"params.yaml: device: {device!r} is not available here; available: "
            f"{', '.join(name for name, there in available.items() if there)}, or auto"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """The precision to use: "auto" is the best that the device has in hardware.

    bfloat16 where it is native, on CUDA (emulation does not count: it is slower than float32) and
    on CPUs with AVX512-BF16 or AMX; else float16 on CUDA; else float32. CPUs train in no float16:
    bfloat16 stands in for it (as in Lightning), and is what gets recorded.

    Raises UserError for bf16-mixed on a GPU that only emulates it.
    """
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16-mixed" and device == "cuda" and not native:
        raise UserError(
            f"params.yaml: precision: bf16-mixed, but {torch.cuda.get_device_name()} only emulates "
            "bfloat16, slower than float32. Say 16-mixed, or auto for the best that a device has."
        )
    if precision == "16-mixed" and device == "cpu":
        return "bf16-mixed"
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16-mixed" if native else "16-mixed"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return "bf16-mixed"
    return "32-true"


@contextmanager
def full_float32(device: str) -> Iterator[None]:
    """Run what is inside in float32, whatever a model is trained in: no autocast, no TF32.

    Scores are computed under it, in training and in evaluation alike: so they are one number, and
    do not depend on how a machine rounds half precision.
    """
    cudnn = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with cudnn, torch.autocast(device, enabled=False):
        yield


def peak_memory_gb(device: str) -> float:
    """The most memory used so far, in GB (10^9 bytes): of the GPU, or of this process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    # ru_maxrss is in kilobytes on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
