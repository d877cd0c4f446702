from __future__ import annotations

import pytest
import torch

from roofseg.device import full_float32, peak_memory_gb, resolve_device, resolve_precision
from roofseg.errors import UserError


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    *,
    cuda: bool = False,
    mps: bool = False,
    native: bool = False,
    cpu: dict[str, bool] | None = None,
) -> None:
    """Let torch say that it finds this hardware; emulated bfloat16 is always there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu or {})


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_best_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, best: str
) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert resolve_device("auto") == best
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(best) == best


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    pretend(monkeypatch, cuda=device != "cuda", mps=device != "mps")
    other = {"cuda": "mps", "mps": "cuda"}[device]
    with pytest.raises(UserError, match=f"device: '{device}' is not .* {other}, cpu, or auto"):
        resolve_device(device)


def test_this_machine_has_the_device_that_auto_names() -> None:
    assert torch.ones(1, device=resolve_device("auto")).item() == 1


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_on_cuda_only_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    pretend(monkeypatch, cuda=True, native=native)
    assert resolve_precision("auto", "cuda") == ("bf16-mixed" if native else "16-mixed")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "32-true"),
        ({"avx2": True, "avx512_f": True}, "32-true"),
        ({"avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
    ],
)
def test_auto_takes_bfloat16_on_cpus_that_have_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    # A GPU beside it changes nothing for a run on the CPU.
    pretend(monkeypatch, cuda=True, native=True, cpu=capabilities)
    assert resolve_precision("auto", "cpu") == expected


def test_auto_is_float32_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, mps=True, native=True, cpu={"amx_bf16": True})
    assert resolve_precision("auto", "mps") == "32-true"


@pytest.mark.parametrize("device", ["cuda", "mps", "cpu"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_precision_that_is_asked_for_is_used(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str
) -> None:
    pretend(monkeypatch, cuda=True, native=True)
    assert resolve_precision(precision, device) == precision


def test_bfloat16_that_a_gpu_only_emulates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=True, native=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(UserError, match=r"precision: bf16-mixed, but Tesla T4 only emulates"):
        resolve_precision("bf16-mixed", "cuda")
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"


def test_full_float32_within_any_autocast() -> None:
    one = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (one @ one).dtype is torch.bfloat16
        with full_float32("cpu"):
            assert (one @ one).dtype is torch.float32
            assert not torch.backends.cudnn.allow_tf32
        assert (one @ one).dtype is torch.bfloat16


def test_float16_is_recorded_as_what_runs_in_its_place_on_a_cpu() -> None:
    assert resolve_precision("16-mixed", "cuda") == "16-mixed"
    assert resolve_precision("16-mixed", "cpu") == "bf16-mixed"


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_memory_gb("cpu")
    held = bytearray(b"x" * 300_000_000)
    after = peak_memory_gb("cpu")
    assert len(held) == 300_000_000
    assert 0.05 < before <= after < 60
    assert after >= 0.3
