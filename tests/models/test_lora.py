"""LoRA on every family of vision transformers: trained beside frozen weights, then merged."""

from __future__ import annotations

import pytest
import torch
from tiers import cases
from torch import nn

from roofseg.core.errors import UserError
from roofseg.models import lora, sam
from roofseg.models.lora import AdaptedLinear
from roofseg.models.roof_model import RoofModel, build_model
from roofseg.recipe.lora import Lora

LORA = Lora(rank=4, alpha=8.0, targets=("qkv", "proj"))
EVA = ("vit_conv", "tu-vit_tiny_patch16_dinov3_qkvb")  # biases beside the layer qkv
# The number of linear layers named qkv and proj.
LAYERS = {
    ("sam_unet", "sam_vit_b"): 16,
    EVA: 24,
    ("vit_unet", "mobile_sam"): 20,
    ("vit_unet", "tu-sam2_hiera_tiny"): 27,  # three are between stages
    ("dpt", "tu-vit_tiny_patch16_224"): 24,
    ("vit_conv", "tu-vit_small_patch14_reg4_dinov2"): 24,
    ("vit_unet", "tu-vit_small_patch16_dinov3"): 24,
}
WHOLE = [*LAYERS][2:]


def images(count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def build(architecture: str, encoder: str) -> RoofModel:
    """A model whose residual branches count; at first some ViTs scale them by 1e-5.

    Every second block of SAM's encoder attends in windows, which it pads.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sam.SIZES, "sam_vit_b", sam.Size(48, 8, 3, (1, 3, 5, 7)))
        torch.manual_seed(0)
        model = build_model(architecture, encoder, dropout=0.3, patch_size=64)
    for name, parameter in model.encoder.named_parameters():
        if "gamma" in name:
            nn.init.ones_(parameter)
    return model


def train_deltas(model: RoofModel) -> None:
    """Give the deltas values as training may."""
    torch.manual_seed(2)
    for delta in model.encoder_parameters():
        nn.init.normal_(delta, std=0.02)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("pair", cases(LAYERS, whole=WHOLE), ids="-".join)
def test_deltas_are_trained_and_merged(pair: tuple[str, str]) -> None:
    model = build(*pair).eval()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    x = images()
    with torch.no_grad():
        plain = model(x)
    model.adapt(LORA)
    adapted = [m for m in model.encoder.modules() if isinstance(m, AdaptedLinear)]
    assert len(adapted) == LAYERS[pair]
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain, rtol=0, atol=1e-5)
    # A prior fits before, and the file of a trained model afterwards.
    names = {name for name in model.encoder.state_dict() if not lora.is_delta(name)}
    assert names == before.keys()

    train_deltas(model)
    model.train()
    assert not any(layer.training for layer in model.encoder.modules())
    assert model.decoder.training
    model(images(2)).square().mean().backward()
    for name, parameter in model.encoder.named_parameters():
        gradient = parameter.grad
        assert (gradient is not None and gradient.abs().sum() > 0) == lora.is_delta(name), name
    assert sum(p.numel() for p in model.encoder_parameters()) == lora.count(model.encoder, LORA)

    model.eval()
    with torch.no_grad():
        beside = model(x)
        model.merge()
        torch.testing.assert_close(model(x), beside, rtol=0, atol=1e-5)
        assert (beside - plain).abs().max() > 1e-3
    after = model.encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert after.keys() == before.keys()
    assert len(changed) == len(adapted)
    assert all(name.endswith(("qkv.weight", "proj.weight")) for name in changed)
    assert sum(p.numel() for p in model.encoder_parameters()) == sum(
        p.numel() for p in model.encoder.parameters()
    )


def test_a_layer_computes_the_formula() -> None:
    encoder = nn.ModuleDict({"qkv": nn.Linear(6, 9), "fc1": nn.Linear(6, 6)})
    lora.adapt(encoder, Lora(rank=2, alpha=5.0, targets=("qkv",)))
    layer = encoder["qkv"]
    assert type(encoder["fc1"]) is nn.Linear
    assert isinstance(layer, AdaptedLinear)
    assert (layer.lora_a.shape, layer.lora_b.shape) == ((2, 6), (9, 2))
    assert layer.lora_a.abs().sum() > 0 == layer.lora_b.abs().sum()
    nn.init.normal_(layer.lora_b)
    x = torch.rand(3, 6)
    weight = layer.weight + 5 / 2 * layer.lora_b @ layer.lora_a
    torch.testing.assert_close(layer(x), x @ weight.T + layer.bias)


def test_only_deltas_and_decoder_differ_from_the_initial_weights() -> None:
    model = build(*EVA)
    decoder = {f"decoder.{name}" for name in model.decoder.state_dict()}
    model.adapt(LORA)
    trained = model.trained_state_dict().keys()
    assert {name for name in trained if not lora.is_delta(name)} == decoder
    assert len(trained) == len(decoder) + 2 * LAYERS[EVA]
    model.freeze_encoder(True)
    assert model.trained_state_dict().keys() == decoder


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("half", cases([torch.bfloat16, torch.float16], whole=[torch.float16]))
def test_half_precision_stays_near(half: torch.dtype) -> None:
    model = build(*EVA)
    model.adapt(LORA)
    train_deltas(model)
    with torch.no_grad():
        full = model.eval()(images())
    with torch.autocast("cpu", half):
        rough = model(images())
    rough.float().square().mean().backward()
    assert (rough.float() - full).abs().mean() < 0.05 * full.std()
    for parameter in model.encoder_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Lora(4, 4.0, ("qkv", "q")), "lora_targets: found 'q', .* some of qkv, proj, fc1, fc2$"),
        (Lora(4, 4.0, ("patch_embed",)), "lora_targets: found 'patch_embed'"),
        (Lora(192, 4.0, ("qkv",)), "lora_rank: found 192; expected less than 192, the smallest"),
    ],
)
def test_layers_that_are_missing_or_too_small_are_errors(settings: Lora, says: str) -> None:
    with torch.device("meta"):
        model = build(*EVA)
    with pytest.raises(UserError, match=says):
        model.adapt(settings)
    assert not model.adapted
    assert all(p.requires_grad for p in model.parameters())
