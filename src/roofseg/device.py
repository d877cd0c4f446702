"""Which device trains, and in which precision."""

from __future__ import annotations

import resource
import sys

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
    """
    if precision == "16-mixed" and device == "cpu":
        return "bf16-mixed"
    if precision != "auto":
        return precision
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native else "16-mixed"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return "bf16-mixed"
    return "32-true"


def peak_memory_gb(device: str) -> float:
    """The most memory used so far, in GB (10^9 bytes): of the GPU, or of this process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    # ru_maxrss is in kilobytes on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
