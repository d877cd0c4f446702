"""Whole runs that adapt a ViT by LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_run import SMALL_VIT, P, Run, as_bytes, train_small

from roofseg.core.weights import read_weights, write_weights
from roofseg.models import lora
from roofseg.models.roof_model import RoofModel, build_model

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def start() -> RoofModel:
    torch.manual_seed(1)
    return build_model(*SMALL_VIT.values(), dropout=0.0, patch_size=P)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory, start: RoofModel) -> Path:
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    write_weights(path, start.encoder.state_dict())
    return path


@pytest.fixture(scope="module", params=["32-true", "bf16-mixed"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prior: Path
) -> Run:
    folder = tmp_path_factory.mktemp("run")
    return train_small(
        folder, prior, folder / "state", **SMALL_VIT, lora_rank=4, precision=request.param
    )


def test_the_model_has_the_prior_with_the_deltas_merged(run: Run, start: RoofModel) -> None:
    before, after = as_bytes(start.encoder), as_bytes(run.trained.model.encoder)
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert len(changed) == 20
    assert all(name.endswith(("qkv.weight", "proj.weight")) for name in changed)
    assert not run.trained.model.adapted


def test_the_record_counts_the_deltas(run: Run, start: RoofModel) -> None:
    record = run.trained.record()
    assert record["encoder_parameters"] == sum(p.numel() for p in start.encoder.parameters())
    assert record["adapter_parameters"] == 44544  # half of rank 8's, which docs/models.md has
    assert record["trainable_parameters"] == record["decoder_parameters"] + 44544
    assert ", encoder adapted by LoRA of rank 4" in run.printed


def test_the_state_holds_deltas_and_decoder_alone(run: Run) -> None:
    state = run.folder / "state"
    kept = torch.load(state / "last.ckpt", weights_only=True)
    best = read_weights(next(state.glob("best-*.safetensors")))
    assert kept["state_dict"].keys() == {f"model.{name}" for name in best}
    encoder = {name for name in best if name.startswith("encoder.")}
    assert len(encoder) == 40
    assert all(lora.is_delta(name) for name in encoder)
    assert len(kept["optimizer_states"][0]["state"]) == len(best)  # the decoder has no buffers
