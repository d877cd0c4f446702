"""Export to ONNX, compared with torch, and models that cannot be exported.

tests/models/test_architectures.py exports a model of every architecture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graph import ROOT
from project import environment

from roofseg import cli
from roofseg.commands import export as command
from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file
from roofseg.mapping.load_model import load_predictor
from roofseg.mapping.onnx_export import export
from roofseg.mapping.onnx_predictor import TOLERANCE
from roofseg.models.roof_model import build_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")

P = 64
SMALL = "tu-mobilenetv3_small_050"


def write_model(folder: Path, architecture: str, encoder: str) -> Path:
    """A model's folder with random weights, as training writes it."""
    torch.manual_seed(0)
    model = build_model(architecture, encoder, dropout=0.5, patch_size=P)
    save_model(folder / "model.safetensors", model)
    record = {
        "attempt": "small",
        "digest": "0123456789ab",
        "dataset": "tiny",
        "patch_size": P,
        "gsd": [0.3, 0.6],
        "recipe": {"architecture": architecture, "encoder": encoder, "dropout": 0.5},
    }
    (folder / "recipe.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("small"), "unet", SMALL)


@pytest.mark.whole
def test_the_command_writes_the_model_as_one_file(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "model.onnx"
    (out.parent / ".model.onnx.k1ll3d__").mkdir(parents=True)  # left by a killed run
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.main(parser.parse_args(["--model", str(small), "--out", str(out)]))
    said = capfd.readouterr()
    assert said.out.startswith(f"{out}: ")
    assert "windows of 64 px" in said.out
    assert len((said.out + said.err).splitlines()) == 1  # the exporter prints nothing
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    check_same(small, out)

    # Any program can read this.
    onnx.checker.check_model(out, full_check=True)
    model = onnx.load(out)
    (images,), (probability,) = model.graph.input, model.graph.output
    assert (images.name, probability.name) == ("images", "probability")
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    batch, *rest = images.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [dim.dim_value for dim in rest] == [P, P, 3]
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["roofseg_window"] == "64"
    assert json.loads(metadata["roofseg_gsd"]) == [0.3, 0.6]
    assert metadata["ROOFSEG_ATTEMPT"] == "small"


def check_same(folder: Path, out: Path) -> None:
    """Compare the exported model with the model in ``folder``."""
    torch_model = load_predictor(folder, device="cpu", precision="32-true")
    onnx_model = load_predictor(out, device="cpu")
    assert onnx_model.window == torch_model.window == P
    assert onnx_model.gsd == torch_model.gsd == (0.3, 0.6)
    assert onnx_model.provenance == torch_model.provenance
    weights = sha256_file(folder / "model.safetensors")
    assert onnx_model.provenance["ROOFSEG_WEIGHTS_SHA256"] == weights
    images = np.random.default_rng(1).integers(0, 256, (4, P, P, 3), dtype=np.uint8)
    found = onnx_model(images)
    assert found.std() > 0
    np.testing.assert_allclose(found, torch_model(images), atol=TOLERANCE)
    np.testing.assert_allclose(found[1:2], onnx_model(images[1:2]), atol=1e-5)


@pytest.mark.whole
def test_a_difference_over_the_tolerance_writes_nothing(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    out.write_text("before")
    with pytest.raises(UserError, match=r"differ from torch's by up to .*; expected at most -1"):
        export(small, out, tolerance=-1, overwrite=True)
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_existing_file_is_kept_without_overwrite(small: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(UserError, match=r"model\.onnx: already exists\. .*--overwrite"):
        export(small, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"


def test_a_folder_in_place_of_the_file_stays(small: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(UserError, match=r"model\.onnx: a folder; expected the name of a file"):
        export(small, tmp_path / "model.onnx", overwrite=True)
    assert (tmp_path / "model.onnx").is_dir()


@pytest.mark.parametrize("tolerance", ["nan", "-1", "much"])
def test_a_tolerance_is_a_number(
    tmp_path: Path, tolerance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--model", tmp_path, "--out", tmp_path / "x.onnx"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*map(str, arguments), f"--tolerance={tolerance}"])
    message = f"--tolerance: found '{tolerance}', expected a number of at least 0"
    assert message in capsys.readouterr().err


def test_a_model_that_cannot_be_exported(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pt: expected a name that ends in \.onnx"):
        export(small, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"recipe\.json: no such file"):
        export(tmp_path, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"none: expected a model, found nothing\..*them\)\.$"):
        export(tmp_path / "none", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/model\.onnx: cannot be written \(.*File exists"):
        export(small, tmp_path / "file" / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package}, not installed here.*'roofseg\[onnx\]'"):
        export(small, tmp_path / "model.onnx")


@pytest.mark.whole
def test_the_command_is_registered() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "roofseg", "export", "--help"],
        env={**environment(), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--out FILE.onnx" in done.stdout
