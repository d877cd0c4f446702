from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small_run import machine

import stages.training
from roofseg.core.errors import StoppedError, UserError
from stages import ROOT
from stages.training import check_parent, own_gpus, state_root, written


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No machine that runs the tests needs any: only what is looked up is made up."""
    monkeypatch.setattr(stages.training, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(stages.training, "visible_gpus", lambda: ["one", "two"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


@pytest.mark.usefixtures("two_gpus")
def test_each_training_takes_a_gpu_of_its_own_and_names_it_to_its_processes() -> None:
    with own_gpus(machine()) as first:
        assert (first, os.environ["CUDA_VISIBLE_DEVICES"]) == ([0], "GPU-one")
        with own_gpus(machine()) as second:
            assert (second, os.environ["CUDA_VISIBLE_DEVICES"]) == ([1], "GPU-two")
    with own_gpus(machine(devices=2)) as both:
        assert (both, os.environ["CUDA_VISIBLE_DEVICES"]) == ([0, 1], "GPU-one,GPU-two")


def test_a_training_on_the_cpu_takes_none() -> None:
    with own_gpus(machine(device="cpu")) as gpus:
        assert gpus is None


def test_runs_are_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROOFSEG_STATE_DIR", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    assert state_root() == Path(".state")
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert state_root() == Path("/project/.state")
    monkeypatch.setenv("ROOFSEG_STATE_DIR", "~/drive")
    assert state_root() == Path.home() / "drive"


def test_a_process_that_dvc_started_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(stages.training, "PARENT", os.getppid() + 1)
    check_parent()
    monkeypatch.setenv("DVC_STAGE", "train@small")
    with pytest.raises(StoppedError, match="dvc, which started it, is gone") as caught:
        check_parent()
    assert caught.value.status == 143
    monkeypatch.setattr(stages.training, "PARENT", os.getppid())
    check_parent()


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written: .*no such folder"), written():
        (tmp_path / "no such folder" / "file").write_text("")


def test_importing_a_stage_leaves_the_signals_of_a_process_alone() -> None:
    code = "import signal; before = signal.getsignal(2); import stages; "
    code += "assert signal.getsignal(2) is before"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
