"""Building, saving and loading models, and the rules for encoders of smp."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import nn

from roofseg.core.errors import UserError
from roofseg.models import cnn
from roofseg.models.roof_model import (
    RoofModel,
    build_encoder,
    build_model,
    load_model,
    save_model,
)

LITE0 = "tu-tf_efficientnet_lite0"


def build(architecture: str, encoder: str, dropout: float = 0.3, size: int = 64) -> RoofModel:
    torch.manual_seed(0)
    return build_model(architecture, encoder, dropout=dropout, patch_size=size)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_every_dropout_layer_of_torch_is_turned_off_in_encoders() -> None:
    layers = [layer(0.5) for name, layer in vars(nn).items() if "Dropout" in name]
    assert len(layers) >= 6
    cnn.without_dropout(nn.Sequential(*layers))
    assert [layer.p for layer in layers] == [0.0] * len(layers)


def test_random_positions_are_turned_off_in_encoders() -> None:
    """timm's rotary embeddings can shift and rescale the positions of tokens in training."""
    rope = RotaryEmbeddingDinoV3(16, shift_coords=0.5, rescale_coords=2.0)
    assert not torch.equal(rope.get_embed(shape=[2, 3]), rope.get_embed(shape=[2, 3]))
    cnn.without_dropout(nn.Sequential(rope))
    assert torch.equal(rope.get_embed(shape=[2, 3]), rope.get_embed(shape=[2, 3]))


@pytest.mark.parametrize("encoder", ["efficientnet-b0", "mit_b0", "tu-tf_efficientnet_lite0"])
def test_dropout_inside_encoders_is_turned_off(encoder: str) -> None:
    """smp's efficientnet-b0 and mit_b0 have stochastic depth unless it is turned off."""
    model = build("unet", encoder)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        once, again = model.encoder(x)[-1], model.encoder(x)[-1]
    assert torch.equal(once, again)


def test_same_seed_same_weights() -> None:
    one, two = build("unet", LITE0).state_dict(), build("unet", LITE0).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_save_and_load(tmp_path: Path) -> None:
    model = build("unet", LITE0).to(memory_format=torch.channels_last)
    model(images(2, 3, 64, 64))  # moves the BatchNorm statistics away from where they start
    for name in ("one", "two"):
        save_model(tmp_path / name, model)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    torch.manual_seed(9)
    other = build_model("unet", LITE0, dropout=0.0, patch_size=128)
    load_model(tmp_path / "one", other)
    x = images(1, 3, 64, 64)
    torch.testing.assert_close(model.eval()(x), other.eval()(x))

    with pytest.raises(UserError, match=r"one: not the weights of this .* lacks decoder\.decoder"):
        load_model(tmp_path / "one", build("deeplabv3plus", LITE0))
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "three", other)
    (tmp_path / "one").write_text("no weights")
    with pytest.raises(UserError, match="expected a safetensors file"):
        load_model(tmp_path / "one", other)


@pytest.mark.parametrize(
    ("architecture", "encoder", "size", "message"),
    [
        ("pspnet", "resnet34", 64, r"architecture: found 'pspnet'; expected one of unet,"),
        (
            "unet",
            "resnet43",
            64,
            r"encoder: found 'resnet43'.*Similar names: resnet34.*https://smp",
        ),
        ("unet", "tu-resnet43", 64, r"encoder: found 'tu-resnet43'.*tu-resnet34"),
        ("unet", "tu-resnet34.nobody", 64, r"encoder: found 'tu-resnet34\.nobody'"),
        ("unet", "timm-tf_efficientnet_lite0", 64, r"encoder: found 'timm-.*tu-tf_efficientnet"),
        (
            "deeplabv3plus",
            "densenet121",
            64,
            r"encoder: found 'densenet121', which DeepLabV3Plus cannot",
        ),
        ("unet", "tu-nest_tiny", 64, r"encoder: found 'tu-nest_tiny', which Unet cannot"),
        ("unet", "sam_vit_b", 64, r"encoder: found 'sam_vit_b' with architecture 'unet'"),
        ("sam_conv", "resnet34", 64, r"encoder: found 'resnet34' .*which takes sam_vit_b"),
        (
            "unet",
            "mobile_sam",
            64,
            r"'mobile_sam' with .*'unet'.*none of sam_vit_b,.* with vit_conv",
        ),
        ("sam_unet", "sam_vit_l", 64, r"'sam_vit_l' .*takes sam_vit_b\. Others go with vit_conv"),
        ("dpt", "resnet34", 64, r"'resnet34' .*'dpt', which takes sam_vit_b, .*or tu-NAME"),
        ("vit_unet", "tu-resnet18", 64, r"'tu-resnet18', which no ViT architecture can use"),
        (
            "vit_conv",
            "tu-vit_tiny_patch16_dinov4",
            64,
            r"Similar names: tu-vit_tiny_patch16_dinov3",
        ),
        ("vit_conv", "tu-vit_tiny_r_s16_p8_224", 64, r"\(its patches have \d+ pixels\)"),
        ("vit_unet", "tu-volo_d1_224", 64, r"'tu-volo_d1_224', which no ViT"),
        ("vit_unet", "sam_vit_l", 48, r"patch_size: found 48; expected a multiple of 32"),
        ("unet", "resnet34", 80, r"patch_size: found 80; expected a multiple of 32"),
        ("sam_unet", "sam_vit_b", 72, r"patch_size: found 72; expected a multiple of 16"),
    ],
)
def test_a_model_that_cannot_be_built_names_the_key(
    architecture: str, encoder: str, size: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_model(architecture, encoder, dropout=0.0, patch_size=size)


def test_known_encoders_with_and_without_a_tag() -> None:
    assert build("unet", "tu-tf_efficientnet_lite0.in1k").mean.flatten().tolist() == [0.5] * 3


def test_gradients_under_bfloat16_are_right_and_repeat() -> None:
    """torch 2.14.1's bfloat16 weight gradient of dilated depthwise convolutions is neither."""
    torch.manual_seed(0)
    model = build_model("deeplabv3plus", LITE0, dropout=0.0, patch_size=256)
    model = model.to(memory_format=torch.channels_last).train()
    dilated = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1 and max(module.dilation) > 1
    ]
    assert len(dilated) == 7  # four in the encoder, three in the ASPP
    convolution = dilated[0]
    x = torch.rand(2, convolution.in_channels, 32, 32).contiguous(memory_format=torch.channels_last)

    def gradient(dtype: torch.dtype | None) -> torch.Tensor:
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            y = convolution(x.to(dtype or torch.float32))
        y.float().square().sum().backward()
        assert convolution.weight.grad is not None
        return convolution.weight.grad.clone()

    exact = gradient(None)
    for _ in range(3):
        scratch = torch.full((1 << 22,), float("nan"))  # what the kernel would read
        del scratch
        found = gradient(torch.bfloat16)
        # x is rounded to bfloat16's 8 bits on the way in.
        assert (found - exact).abs().max() < 0.01 * exact.abs().max()


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ("resnet5", r"encoder: found 'resnet5'; .*Similar names: resnet"),
        ("sam_vit_x", r"encoder: found 'sam_vit_x'; expected an encoder"),
        ("tu-vit_small_patch32_224", r"no ViT architecture can use \(its patches have 32 pixels"),
    ],
)
def test_an_encoder_that_no_architecture_takes(encoder: str, says: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=says):
        build_encoder(encoder)
