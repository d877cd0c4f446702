"""Choose device, GPUs and precision; set up the memory allocator and float32; measure memory."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from roofseg.core.errors import UserError

POLL_S = 1.0
# The CPU allocator, cuBLAS and cuDNN raise plain errors with these messages.
OUT_OF_MEMORY = re.compile("can't allocate memory|_STATUS_ALLOC_FAILED")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def resolve_device(device: str, devices: int = 1) -> str:
    """The device to use: "auto" is the best available one (cuda, then mps, then cpu).

    Raises UserError if the device is not available, or there are fewer than ``devices`` GPUs.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, present in available.items() if present)
    if device == "cuda" and devices > torch.cuda.device_count() > 0:
        raise UserError(
            f"devices: {devices}, but there are {torch.cuda.device_count()} GPUs here "
            "(CUDA_VISIBLE_DEVICES can hide some); expected at most as many"
        )
    if not available[device]:
        raise UserError(
            f"device: {device!r} is not available here; available: "
            f"{', '.join(name for name, present in available.items() if present)}, or auto"
        )
    return device


def processor(device: str) -> str:
    """What decides how a device rounds: the GPU's name, or the CPU's vector instructions."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return str(torch.backends.cpu.get_cpu_capability()) if device == "cpu" else device


def visible_gpus() -> list[str]:
    """The UUIDs of the CUDA devices that this process sees, in the order of their indices.

    CUDA_VISIBLE_DEVICES hides and reorders devices, but a UUID names one GPU in every process.
    """
    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]


@contextmanager
def claim_gpus(gpus: Sequence[str], wanted: int, folder: Path) -> Iterator[list[int]]:
    """Claim the first ``wanted`` of ``gpus`` that nobody else has claimed; yield their indices.

    A claim is a file lock in ``folder``, which all processes of the machine share; it ends with the
    block or the process. ``gpus`` are UUIDs (`visible_gpus`). While too few GPUs are free, this
    prints one line and waits without a claim. A process that sees only as many GPUs as it wants
    uses them even if others have claimed them.

    Raises UserError if a lock file cannot be locked.
    """
    locks = [FileLock(folder / f"roofseg-gpu-{gpu}.lock", mode=0o666) for gpu in gpus]
    announced = False
    try:
        while len(claimed := _claim_free(locks, wanted)) < wanted < len(gpus):
            for index in claimed:
                locks[index].release()
            if not announced:
                print(f"waiting for {wanted} of {len(gpus)} GPUs: other runs use them", flush=True)
            announced = True
            time.sleep(POLL_S)
        yield claimed if len(claimed) == wanted else list(range(wanted))
    finally:
        for lock in locks:
            lock.release()


def _claim_free(locks: Sequence[FileLock], wanted: int) -> list[int]:
    """Acquire up to ``wanted`` of the locks without waiting; return their indices."""
    claimed: list[int] = []
    for index, lock in enumerate(locks):
        if len(claimed) == wanted:
            break
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        except OSError as error:
            raise UserError(
                f"{lock.lock_file}: cannot be locked ({error}); the lock claims a GPU for one run. "
                "Change the file's permissions, or set TMPDIR to another folder."
            ) from None
        claimed.append(index)
    return claimed


def resolve_precision(precision: str, device: str) -> str:
    """The precision to use: "auto" is the best that the device supports in hardware.

    That is bfloat16 on CPUs with AVX512-BF16 or AMX and on GPUs that support it in hardware (those
    that emulate it are slower than in float32); otherwise float16 on CUDA, and float32 elsewhere.
    CPUs cannot train in float16: for them 16-mixed becomes bf16-mixed, as in Lightning.

    Raises UserError for bf16-mixed on a GPU that only emulates it.
    """
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16-mixed" and device == "cuda" and not native:
        raise UserError(
            f"precision: bf16-mixed, but {torch.cuda.get_device_name()} only emulates "
            "bfloat16, slower than float32. Set 16-mixed, or auto for the device's best."
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


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for later allocations; without glibc, do nothing.

    By default glibc returns large blocks to the kernel when they are freed, and the kernel clears
    the pages of every new tensor: 15 % of a training step on a CPU (U-Net on ResNet34, 4 x 512 px).
    Afterwards the process keeps the memory of its largest step until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` is of torch's allocators for GPUs or CPUs, of cuBLAS or of cuDNN."""
    return isinstance(error, torch.OutOfMemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


@contextmanager
def full_float32(device: str) -> Iterator[None]:
    """Compute in float32 inside the block: no autocast, no TF32, deterministic cuDNN kernels.

    Training and evaluation compute scores inside it, whatever the precision of training. So both
    get the same scores, and these do not depend on how a machine rounds half precision.
    """
    cudnn = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with cudnn, torch.autocast(device, enabled=False):
        yield


def peak_memory_gb(device: str) -> float:
    """Peak memory so far, in GB (10^9 bytes): of the GPU for "cuda", otherwise of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    # ru_maxrss is in kilobytes on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
