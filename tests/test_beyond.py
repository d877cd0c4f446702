"""profiles/beyond.yaml: its file of MobileSAM fits, and its attempts train on small patches."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from graph import ROOT
from ruamel.yaml import YAML
from small_run import train_small
from tiny_dataset import tile_pixels

from roofseg.core.weights import write_weights
from roofseg.models import vit
from roofseg.patches import Patch
from roofseg.priors.file import renamed
from roofseg.recipe.parsing import read_params

PARAMS = read_params(ROOT / "profiles" / "beyond.yaml")
SIDE = 224
PATCHES = [Patch(f"tile{seed}", *tile_pixels(seed, SIDE)) for seed in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("attempt", PARAMS.attempts)
def test_an_attempt_trains(attempt: str, tmp_path: Path) -> None:
    write_weights(prior := tmp_path / "scratch.safetensors", {})
    recipe = PARAMS.recipe(attempt).shortened().model_copy(update={"declared": None})
    values: dict[str, Any] = {**recipe.model_dump(), "batch_size": 2, "draws_per_epoch": 2}
    del values["prior"]
    run = train_small(
        tmp_path / "run", prior, tmp_path / "state",
        train_patches=PATCHES[:2], val_patches=PATCHES[2:], **values,
    )  # fmt: skip
    assert run.trained.epochs_run == 2
    assert run.trained.failure is None
    assert all(math.isfinite(loss) for loss in run.curve("train/loss")["loss"])
    record = run.trained.record()
    assert (record["adapter_parameters"] > 0) == attempt.endswith("_lora")
    assert (record["trainable_parameters"] == record["decoder_parameters"]) == (
        recipe.thaw_epoch is None
    )


def official(name: str) -> str:
    """The name of a tensor in the repository of MobileSAM (modeling/tiny_vit_sam.py)."""
    name = re.sub(r"stages\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", name)
    name = re.sub(r"embed\.conv(\d)", lambda m: f"embed.seq.{2 * int(m[1]) - 2}", name)
    name = name.replace("stages.", "layers.").replace(".conv.weight", ".c.weight")
    return f"image_encoder.{name.removeprefix('model.')}"


def test_the_page_has_the_rules_of_the_profile() -> None:
    page = (ROOT / "docs" / "priors.md").read_text()
    (block,) = (
        block for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "MobileSAM" in block
    )
    told = YAML(typ="safe").load(block)["priors"]["files"]["mobile_sam"]
    declared = PARAMS.priors.files["mobile_sam"].model_dump()
    assert told["rename"] == declared["rename"]
    assert sorted(told["ignore"]) == sorted(declared["ignore"])


def test_the_names_in_mobile_sams_file_become_the_encoders() -> None:
    with torch.device("meta"):
        expected = vit.build_encoder("mobile_sam").state_dict()
    held = {official(name): tensor for name, tensor in expected.items()}
    assert {
        "image_encoder.patch_embed.seq.2.c.weight",
        "image_encoder.layers.0.blocks.1.conv3.bn.running_var",
        "image_encoder.layers.2.downsample.conv2.c.weight",
        "image_encoder.layers.3.blocks.0.local_conv.c.weight",
        "image_encoder.layers.1.blocks.0.attn.attention_biases",
        "image_encoder.neck.3.bias",
    } <= held.keys()
    other = ("image_encoder.norm_head.bias", "image_encoder.head.bias", "mask_decoder.iou_token")
    held |= dict.fromkeys([*other, "prompt_encoder.not_a_point_embed.weight"], torch.zeros(1))
    declared = PARAMS.priors.files["mobile_sam"]
    found = renamed(held, declared, Path("mobile_sam.pt"))
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
