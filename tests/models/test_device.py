from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from roofseg.core.errors import UserError
from roofseg.models.device import (
    claim_gpus,
    full_float32,
    peak_memory_gb,
    resolve_device,
    resolve_precision,
    visible_gpus,
)


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    *,
    cuda: bool = False,
    mps: bool = False,
    native: bool = False,
    cpu: dict[str, bool] | None = None,
) -> None:
    """Make torch report this hardware; emulated bfloat16 is always available."""
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
def test_a_device_that_is_not_available_is_an_error(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    pretend(monkeypatch, cuda=device != "cuda", mps=device != "mps")
    other = {"cuda": "mps", "mps": "cuda"}[device]
    with pytest.raises(UserError, match=f"device: '{device}' is not .* {other}, cpu, or auto"):
        resolve_device(device)


def test_auto_names_a_device_of_this_machine() -> None:
    assert torch.ones(1, device=resolve_device("auto")).item() == 1


@pytest.mark.parametrize("native", [True, False])
def test_auto_uses_bfloat16_on_cuda_only_if_it_is_native(
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
def test_auto_uses_bfloat16_on_cpus_that_support_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    # A GPU in the same machine does not matter for a run on the CPU.
    pretend(monkeypatch, cuda=True, native=True, cpu=capabilities)
    assert resolve_precision("auto", "cpu") == expected


def test_auto_is_float32_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, mps=True, native=True, cpu={"amx_bf16": True})
    assert resolve_precision("auto", "mps") == "32-true"


@pytest.mark.parametrize("device", ["cuda", "mps", "cpu"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_precision_other_than_auto_is_used(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str
) -> None:
    pretend(monkeypatch, cuda=True, native=True)
    assert resolve_precision(precision, device) == precision


def test_bfloat16_that_a_gpu_only_emulates_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=True, native=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(UserError, match=r"precision: bf16-mixed, but Tesla T4 only emulates"):
        resolve_precision("bf16-mixed", "cuda")
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"


def test_full_float32_turns_off_an_outer_autocast() -> None:
    one = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (one @ one).dtype is torch.bfloat16
        with full_float32("cpu"):
            assert (one @ one).dtype is torch.float32
            assert not torch.backends.cudnn.allow_tf32
        assert (one @ one).dtype is torch.bfloat16


def test_float16_becomes_bfloat16_on_a_cpu() -> None:
    assert resolve_precision("16-mixed", "cuda") == "16-mixed"
    assert resolve_precision("16-mixed", "cpu") == "bf16-mixed"


def test_peak_memory_on_a_cpu_is_that_of_this_process() -> None:
    before = peak_memory_gb("cpu")
    block = bytearray(b"x" * 300_000_000)
    after = peak_memory_gb("cpu")
    assert len(block) == 300_000_000
    assert 0.05 < before <= after < 60
    assert after >= 0.3


# Claims. GPUs are mere names here, and every job is a process of its own.

PAIR = ["GPU-one", "GPU-two"]


FORK = multiprocessing.get_context("fork")  # torch is imported: a fork has it at once


class Job:
    """A process that claims GPUs until it is released or killed."""

    def __init__(self, gpus: list[str], wanted: int, folder: Path) -> None:
        said, say = os.pipe()
        self._done = FORK.Event()

        def work() -> None:
            sys.stdout = os.fdopen(say, "w")
            with claim_gpus(gpus, wanted, folder) as claimed:
                print(*claimed, flush=True)
                self._done.wait()

        self._process = FORK.Process(target=work)
        self._process.start()
        os.close(say)
        self._said = os.fdopen(said)

    def says(self) -> str:
        """Read its next line: that it waits, or the indices of its GPUs."""
        line = self._said.readline()
        assert line, "it has ended"
        return line.strip()

    def release(self) -> None:
        self._done.set()
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        self.kill()
        self._said.close()


@pytest.fixture
def claiming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    monkeypatch.setattr("roofseg.models.device.POLL_S", 0.01)
    jobs = []

    def start(gpus: list[str] = PAIR, wanted: int = 1) -> Job:
        jobs.append(Job(gpus, wanted, tmp_path))
        return jobs[-1]

    yield start
    for job in jobs:
        job.close()


@pytest.mark.parametrize("end", [Job.release, Job.kill])
@pytest.mark.parametrize("freed", [0, 1])
def test_each_job_has_a_gpu_of_its_own(
    claiming: Callable[..., Job], end: Callable[[Job], None], freed: int
) -> None:
    """Three jobs on two GPUs: the third waits until one has ended, by SIGKILL too."""
    jobs = [claiming() for _ in PAIR]
    # Either may be the first.
    claimed = [int(job.says()) for job in jobs]
    assert sorted(claimed) == [0, 1]
    third = claiming()
    assert third.says() == "waiting for 1 of 2 GPUs: other runs use them"
    time.sleep(0.1)  # it says so once
    end(jobs[claimed.index(freed)])
    assert third.says() == str(freed)


def test_a_job_that_waits_for_two_gpus_holds_none(claiming: Callable[..., Job]) -> None:
    three = [*PAIR, "GPU-three"]
    one = claiming(three)
    assert one.says() == "0"
    two = claiming(three, 2)
    assert two.says() == "1 2"
    waits = claiming(three, 2)
    assert waits.says().startswith("waiting for 2 of 3 GPUs")
    one.kill()
    again = claiming(three)
    says = again.says()
    if says.startswith("waiting"):  # the other one tried just then
        says = again.says()
    assert says == "0"
    two.release()
    assert waits.says() == "1 2"


def test_a_gpu_is_claimed_by_its_name_and_not_by_its_index(claiming: Callable[..., Job]) -> None:
    """If CUDA_VISIBLE_DEVICES hides or reorders GPUs, one index names different GPUs."""
    assert claiming(["GPU-two"]).says() == "0"
    assert claiming().says() == "0"
    assert claiming(["GPU-two", "GPU-one"]).says().startswith("waiting")


def test_a_job_that_sees_only_a_claimed_gpu_shares_it(claiming: Callable[..., Job]) -> None:
    assert claiming(["GPU-one"]).says() == "0"
    assert claiming(["GPU-one"]).says() == "0"
    # Jobs that have a choice respect the claim.
    assert claiming().says() == "1"
    assert claiming(PAIR, 2).says() == "0 1"
    assert claiming().says().startswith("waiting")


def test_a_job_that_fails_releases_its_gpus(tmp_path: Path, claiming: Callable[..., Job]) -> None:
    with pytest.raises(ZeroDivisionError), claim_gpus(PAIR, 2, tmp_path):
        print(1 / 0)
    assert claiming(PAIR).says() == "0"


def test_every_user_of_the_machine_can_use_the_lock_files(tmp_path: Path) -> None:
    with claim_gpus(PAIR, 1, tmp_path) as claimed:
        assert claimed == [0]
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o666]


def test_a_folder_that_can_hold_no_locks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/roofseg-gpu-GPU-one\.lock: .* TMPDIR"),
        claim_gpus(PAIR, 1, tmp_path / "file"),
    ):
        pass


def test_gpus_are_named_by_uuid_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(visible_gpus()) == torch.cuda.device_count()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=PAIR[index])
    )
    assert visible_gpus() == PAIR


@pytest.mark.whole
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has this setting"
)
def test_freed_memory_is_reused_by_later_allocations() -> None:
    """The kernel maps no new pages for a tensor of the size of a freed one."""
    code = """
        import resource, torch
        from roofseg.models.device import keep_freed_memory
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(10_000_000)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        mapped = [faults(), faults()]
        keep_freed_memory()
        kept = [faults() for _ in range(16)]  # the first few may be set aside, one by one
        assert min(*mapped, kept[0]) > 10 * max(kept[-4:]), (mapped, kept)
    """
    # In a process of its own: the setting cannot be undone.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True)
