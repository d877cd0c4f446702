from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small_run import machine

import stages._training
from roofseg.core.errors import StoppedError
from stages import ROOT, state_root
from stages._training import check_parent, code_files, own_gpus


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pretend that there are two GPUs; only their names are looked up."""
    monkeypatch.setattr(stages._training, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(stages._training, "visible_gpus", lambda: ["one", "two"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


@pytest.mark.usefixtures("two_gpus")
def test_each_training_claims_its_own_gpu_and_names_it_to_its_processes() -> None:
    with own_gpus(machine()) as first:
        assert (first, os.environ["CUDA_VISIBLE_DEVICES"]) == ([0], "GPU-one")
        with own_gpus(machine()) as second:
            assert (second, os.environ["CUDA_VISIBLE_DEVICES"]) == ([1], "GPU-two")
    with own_gpus(machine(devices=2)) as both:
        assert (both, os.environ["CUDA_VISIBLE_DEVICES"]) == ([0, 1], "GPU-one,GPU-two")


def test_training_on_the_cpu_claims_no_gpu() -> None:
    with own_gpus(machine(device="cpu")) as gpus:
        assert gpus is None


def test_states_are_kept_in_the_project_or_in_the_folder_that_the_user_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ROOFSEG_STATE_DIR", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    assert state_root() == Path(".state")
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert state_root() == Path("/project/.state")
    monkeypatch.setenv("ROOFSEG_STATE_DIR", "~/drive")
    assert state_root() == Path.home() / "drive"
    monkeypatch.setenv("ROOFSEG_STATE_DIR", "~nobody-here/drive")  # as in a shell
    assert state_root() == Path("~nobody-here/drive").absolute()


def test_a_stage_that_dvc_started_stops_when_dvc_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(stages._training, "PARENT", os.getppid() + 1)
    check_parent()
    monkeypatch.setenv("DVC_STAGE", "train@small")
    with pytest.raises(StoppedError, match="dvc, which started this stage, has ended") as caught:
        check_parent()
    assert caught.value.status == 143
    monkeypatch.setattr(stages._training, "PARENT", os.getppid())
    check_parent()


def test_the_code_of_a_run_is_its_stage_and_the_imported_modules(tmp_path: Path) -> None:
    files = code_files(str(tmp_path / "stage.py"))
    imported = ("stages/_training.py", "src/roofseg/training/engine.py")
    assert {tmp_path / "stage.py", *(ROOT / name for name in imported)} <= files
    assert all(file.is_relative_to(ROOT) for file in files - {tmp_path / "stage.py"})


def test_importing_a_stage_changes_no_signal_handler() -> None:
    code = "import signal; before = signal.getsignal(2); import stages; "
    code += "assert signal.getsignal(2) is before"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
