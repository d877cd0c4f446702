"""An attempt with LoRA through the stages: its model is an ordinary one, and its costs count it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from project import Project

from roofseg.inference.torch_predictor import load

pytestmark = pytest.mark.whole


def test_an_adapted_attempt_is_trained_and_scored(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    vit = "architecture: vit_conv\n    encoder: mobile_sam\n    lora_rank: 4"
    block = "architecture: unet\n    encoder: tu-mobilenetv3_small_050"
    project.replace("params.yaml", block, vit)
    project.run("dvc repro evaluate@small")
    results = project.folder / "metrics" / "attempts" / "small"
    record = json.loads((project.folder / "models" / "small" / "recipe.json").read_text())
    assert record["recipe"]["lora_targets"] == ["proj", "qkv"]
    costs = json.loads((results / "costs.json").read_text())
    assert costs["adapter_parameters"] == 44544
    assert costs["trainable_parameters"] == costs["decoder_parameters"] + 44544
    for key in ("adapter_parameters", "trainable_parameters"):
        assert record["result"][key] == costs[key]
    assert "adapted by LoRA of rank 4 (proj, qkv)" in (results / "card.md").read_text()
    predictor = load(project.folder / "models" / "small", device="cpu")
    assert predictor(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 64, 64)
