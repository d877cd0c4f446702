from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_run import recipe
from torch import nn

from roofseg.evaluation import costs
from roofseg.models.roof_model import RoofModel, build_model, save_model
from roofseg.models.sam import SamEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

ENCODER = "tu-mobilenetv3_small_050"
P = 64


class Pixelwise(nn.Module):
    """Two convolutions whose multiply-adds are easy to count."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.head = nn.Conv2d(8, 1, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.wide(x).relu())
        return logits


@pytest.fixture(scope="module")
def model() -> RoofModel:
    torch.manual_seed(0)
    return build_model("unet", ENCODER, dropout=0.1, patch_size=P)


def test_multiply_adds_of_convolutions_equal_a_count_by_hand() -> None:
    # Each output pixel: 3 x 3 x 3 products for each of 8 channels, then one for each of the 8.
    assert costs.multiply_adds(Pixelwise(), 32) == 32 * 32 * (27 * 8 + 8)


def test_multiply_adds_of_attention_are_counted() -> None:
    """Compare with a count by hand for a block of SAM's encoder, attention included."""
    encoder = SamEncoder("sam_vit_b")
    block, tokens, width = encoder.blocks[2], 4 * 4, 768  # block 2 has global attention
    linear = tokens * width * (3 * width + width + 2 * 4 * width)  # q, k, v; projection; MLP
    attention = 2 * tokens * tokens * width
    positions = 2 * tokens * 4 * width  # rel_h and rel_w: four rows, four columns

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen: torch.Tensor = self.block(x.new_empty(1, 4, 4, width))
            return seen

    assert costs.multiply_adds(Block(), P) == linear + attention + positions


@pytest.mark.whole
def test_measuring_costs_leaves_the_model_as_it_is(model: RoofModel, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    save_model(weights, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = costs.measure(model, recipe(), weights=weights, patch_size=P)
    frozen = costs.measure(model, recipe(freeze_epochs="all"), weights=weights, patch_size=P)

    total = sum(parameter.numel() for parameter in model.parameters())
    assert found["total_parameters"] == found["trainable_parameters"] == total
    assert found["encoder_parameters"] + found["decoder_parameters"] == total
    assert frozen == {**found, "trainable_parameters": found["decoder_parameters"]}
    assert found["adapter_parameters"] == 0
    assert found["model_bytes"] == weights.stat().st_size > 4 * total
    per_pixel = found["multiply_adds_per_patch"] / P**2
    assert found["multiply_adds_per_megapixel"] == round(per_pixel * 1e6)
    assert found["multiply_adds_per_patch"] > 1e6

    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.whole
def test_convolutions_cost_four_times_as_much_on_four_times_the_pixels(model: RoofModel) -> None:
    small, large = (costs.multiply_adds(model, size) for size in (P, 2 * P))
    # Slightly less than four times: squeeze-and-excitation works on one vector per image.
    assert small < large <= 4 * small
    assert large > 3.9 * small


def test_speed_is_measured_on_batches_after_the_first(
    model: RoofModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "SECONDS", 0.01)
    shapes = []
    with model.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape)):
        found = costs.time_inference(model, patch_size=P, device="cpu", batch_size=2)
    assert found.pop("megapixels_per_second") > 0  # type: ignore[operator]
    assert found.pop("precision") in ("32-true", "bf16-mixed")
    assert found == {"device": "cpu", "threads": 1, "batch_size": 2, "patch_size": P}
    # The first batch is not timed.
    assert len(shapes) >= 2
    assert set(shapes) == {(2, 3, P, P)}
