"""Two processes train one model: they stay in step, and compute what one process would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from graph import ROOT
from project import Project, environment

from roofseg.core.weights import read_weights

pytestmark = pytest.mark.whole


def train(folder: Path, devices: int, model: str) -> None:
    folder.mkdir()
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "pipeline" / "ddp_run.py"),
            str(folder),
            str(devices),
            model,
        ],
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("model", ["pixelwise", "unet", "lora"])
def test_two_processes_end_with_the_same_weights_and_scores(tmp_path: Path, model: str) -> None:
    both = tmp_path / "two"
    train(both, 2, model)
    weights = [(both / f"{rank}.safetensors").read_bytes() for rank in (0, 1)]
    records = [json.loads((both / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert weights[0] == weights[1]
    assert records[0] == records[1]
    if model == "pixelwise":
        train(tmp_path / "one", 1, model)
        alone = read_weights(tmp_path / "one" / "0.safetensors")
        for name, values in read_weights(both / "0.safetensors").items():
            assert torch.allclose(values, alone[name], rtol=0, atol=1e-5), name
        assert json.loads((tmp_path / "one" / "0.json").read_text()) == {
            key: pytest.approx(value, abs=1e-5) for key, value in records[0].items()
        }


def test_a_stage_with_two_devices_writes_its_outputs_once(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    project.run("dvc repro make_patches weights/dvc.yaml:prior@scratch")
    project.replace("params.yaml", "devices: 1", "devices: 2")
    project.replace("params.yaml", "batch_size: 2", "batch_size: 4")
    project.replace("params.yaml", "freeze_epochs: 0", "freeze_epochs: 1")
    done = project.run("python -m stages.train --attempt small")
    assert done.stdout.count("small  epoch 1/2") == 1
    record = json.loads((project.folder / "models" / "small" / "recipe.json").read_text())
    assert record["result"]["epochs_run"] == 2
    curve = project.folder / "metrics/attempts/small/live/plots/metrics/val/iou.tsv"
    assert [line.split("\t")[0] for line in curve.read_text().splitlines()] == ["step", "1", "2"]
    assert len(list((project.folder / ".state").glob("small@*/finished.json"))) == 1
