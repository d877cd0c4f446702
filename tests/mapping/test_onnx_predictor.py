"""ONNX models as predictors: a small graph that needs no torch, and files that are no models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from graph import ROOT
from onnx import TensorProto
from onnx_files import METADATA, TAGS, WINDOW, write_model

from roofseg.core.errors import UserError
from roofseg.mapping.load_model import load_predictor
from roofseg.mapping.onnx_predictor import OnnxMetadata, load

SRC = ROOT / "src"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "grey.onnx")


def test_a_model_predicts_and_states_its_metadata(model: Path) -> None:
    predictor = load_predictor(model)
    assert predictor.window == WINDOW
    assert predictor.gsd == (0.3, 0.6)
    assert predictor.provenance == {**TAGS, "ROOFSEG_PRECISION": "32-true"}
    images = np.random.default_rng(0).integers(0, 256, (5, WINDOW, WINDOW, 3), dtype=np.uint8)
    for batch in (images, images[:1], images[:, ::-1]):
        found = predictor(batch)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, batch.mean(axis=3) / 255, atol=1e-6)


def test_metadata_survive_a_round_trip() -> None:
    assert OnnxMetadata.read({**METADATA.metadata(), "another": "key"}) == METADATA
    assert OnnxMetadata.read(OnnxMetadata(64, ()).metadata()) == OnnxMetadata(64, ())


def test_no_torch_is_needed(model: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from roofseg.mapping.load_model import load_predictor
load_predictor(Path({str(model)!r}))
sys.exit("torch" in sys.modules)
"""
    environment = {"PYTHONPATH": str(SRC), "PATH": os.environ["PATH"]}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x04K\x01.", "half", None])
def test_files_that_are_not_onnx_models(model: Path, content: bytes | str | None) -> None:
    if content is None:
        model.unlink()
    else:
        whole = model.read_bytes()
        model.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match=r"no such file|damaged or not an ONNX model|not one that"
    ) as error:
        load(model)
    assert str(error.value).startswith(str(model))


@pytest.mark.parametrize(
    ("metadata", "others"),
    [
        ({}, {}),
        ({**METADATA.metadata(), "roofseg_window": "16"}, {}),
        ({**METADATA.metadata(), "roofseg_window": "large"}, {}),
        ({**METADATA.metadata(), "roofseg_gsd": "0.3"}, {}),
        ({**METADATA.metadata(), "roofseg_gsd": "[0.3"}, {}),
        (None, {"shape": (WINDOW, WINDOW + 1, 3)}),
        (None, {"name": "x"}),
        (None, {"kind": TensorProto.FLOAT}),
    ],
)
def test_a_model_of_another_program(
    tmp_path: Path, metadata: dict[str, str] | None, others: dict[str, object]
) -> None:
    path = write_model(tmp_path / "other.onnx", metadata, **others)
    with pytest.raises(UserError, match="an ONNX model, but not one that `roofseg export` wrote"):
        load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "mps"}, "device mps, precision auto; an ONNX model runs on cpu or cuda"),
        ({"precision": "bf16-mixed"}, "precision bf16-mixed; an ONNX model .* in 32-true"),
    ],
)
def test_unsupported_devices_and_precisions(
    model: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"grey\.onnx: .*{message}"):
        load_predictor(model, **options)


def test_the_number_of_threads_is_set(model: Path) -> None:
    predictor = load(model, threads=3)
    assert predictor.session.get_session_options().intra_op_num_threads == 3


def test_without_onnxruntime(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    expected = r"onnxruntime.* is not installed. Run `pip install 'roofseg\[onnx\]'`"
    with pytest.raises(UserError, match=expected):
        load(model)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there"
)
def test_cuda_that_is_not_available(model: Path) -> None:
    with pytest.raises(UserError, match=r"device cuda, but onnxruntime offers only CPUExecution"):
        load(model, device="cuda")
