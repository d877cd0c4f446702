from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from identity import picture
from small_model import P, write_model

from roofseg.core.errors import UserError
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.mapping.kept_export import is_faster, load
from roofseg.mapping.load_model import load_predictor
from roofseg.mapping.onnx_predictor import TOLERANCE, OnnxPredictor
from roofseg.models.device import resolve_precision

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = picture(P, P)[None]


@pytest.mark.whole
def test_it_is_made_once_for_the_weights_that_the_model_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, kept = write_model(tmp_path / "unet"), tmp_path / ".unet.onnx"
    for again, spoil in enumerate((None, None, kept.write_bytes, None)):
        if spoil:
            spoil(b"damaged")
        before = kept.read_bytes() if kept.exists() else b""
        found = load_predictor(folder, device="cpu", backend="onnxruntime")
        assert isinstance(found, OnnxPredictor)
        expected = load_predictor(folder, device="cpu", precision="32-true")
        assert found.provenance == expected.provenance
        np.testing.assert_allclose(found(IMAGES), expected(IMAGES), atol=TOLERANCE)
        made = again in (0, 2)
        assert (kept.read_bytes() != before) == made
        assert ("exporting it once for onnxruntime" in capsys.readouterr().err) == made
    write_model(folder, seed=1)
    trained_again = load(folder, device="cpu")(IMAGES)
    assert np.abs(trained_again - found(IMAGES)).max() > TOLERANCE
    assert sorted(path.name for path in tmp_path.iterdir()) == [".unet.onnx", "unet"]


def test_auto_takes_it_on_cpus_that_compute_in_float32() -> None:
    assert is_faster("cpu", "auto") == (resolve_precision("auto", "cpu") == "32-true")
    assert not is_faster("cpu", "32-true")  # torch gives the probabilities of the scores
    assert not is_faster("cpu", "bf16-mixed")


def test_where_it_cannot_be_made_torch_runs_the_model_unless_onnxruntime_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "unet")
    (tmp_path / ".unet.onnx").mkdir()
    with pytest.raises(UserError, match=r"\.unet\.onnx: a folder; expected the name of a file"):
        load_predictor(folder, device="cpu", backend="onnxruntime")
    # As on a CPU without bfloat16, which this one may have.
    monkeypatch.setattr("roofseg.mapping.kept_export.is_faster", lambda device, precision: True)
    found = load_predictor(folder, device="cpu", backend="auto")
    assert isinstance(found, TorchPredictor)
    assert "torch runs the model instead (--backend torch)" in capsys.readouterr().err
