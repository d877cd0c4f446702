"""The same tests for all pairs of architecture and encoder, on images of a few tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention
from tiers import cases
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from roofseg.core.errors import UserError
from roofseg.models import cnn, sam
from roofseg.models.roof_model import BUILDERS, RoofModel, build_model, load_model, save_model
from roofseg.recipe.architectures import ARCHITECTURES

LITE0 = "tu-tf_efficientnet_lite0"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
# Parameters in millions: the whole model, and its decoder.
MODELS = {
    ("unet", LITE0): (5.2, 2.2),
    ("deeplabv3plus", LITE0): (3.9, 0.9),
    ("unet", "resnet34"): (24.4, 3.2),
    ("deeplabv3plus", "resnet34"): (22.4, 1.2),
    ("sam_conv", "sam_vit_b"): (91.5, 1.8),
    ("sam_unet", "sam_vit_b"): (96.3, 6.6),
}
WHOLE = [("unet", "resnet34"), ("deeplabv3plus", "resnet34")]  # the same code with more weights
DROPOUTS = {
    "unet": ["decoder.dropout"],
    "deeplabv3plus": ["decoder.decoder.aspp.0.project.3", "decoder.dropout"],
    "sam_conv": ["decoder.head.0"],
    "sam_unet": ["decoder.head.0"],
}


def build(architecture: str, encoder: str, dropout: float = 0.3, size: int = 64) -> RoofModel:
    torch.manual_seed(0)
    return build_model(architecture, encoder, dropout=dropout, patch_size=size)


@pytest.fixture(scope="module", params=cases(MODELS, whole=WHOLE), ids="-".join)
def built(request: pytest.FixtureRequest) -> tuple[RoofModel, str, str]:
    return build(*request.param), *request.param


@pytest.fixture
def model(built: tuple[RoofModel, str, str]) -> Iterator[RoofModel]:
    """The built model, thawed and in train mode, without gradients."""
    model, _, _ = built
    model.freeze_encoder(False)
    model.train()
    model.zero_grad()
    yield model
    model.zero_grad()


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def moving(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the BatchNorm statistics, which training changes."""
    return {name: b.clone() for name, b in module.named_buffers() if "running" in name}


def active_dropouts(module: nn.Module) -> list[str]:
    return [
        name
        for name, layer in module.named_modules()
        if "Dropout" in type(layer).__name__ and layer.p > 0
    ]


def test_output_is_one_logit_per_pixel(model: RoofModel) -> None:
    model.eval()
    x = images(2, 3, 64, 96)
    with torch.no_grad():
        logits = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x.contiguous(memory_format=torch.channels_last))
    assert logits.shape == rough.shape == (2, 1, 64, 96)
    assert logits.isfinite().all()
    assert logits.std() > 0
    assert (logits - rough.float()).abs().mean() < 0.1 * logits.std()


def test_the_model_normalises_by_the_encoders_statistics(
    model: RoofModel, built: tuple[RoofModel, str, str]
) -> None:
    mean, std = HALF if built[2] == LITE0 else IMAGENET  # SAM's are ImageNet's, on 0..255
    model.eval()
    x = images(1, 3, 64, 64)
    normalised = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(
            model(x), model.decoder(model.encoder(normalised)), rtol=1e-3, atol=1e-3
        )
    assert "mean" not in model.state_dict()


def test_features_that_the_decoder_does_not_read_have_no_values(
    model: RoofModel, built: tuple[RoofModel, str, str]
) -> None:
    model.freeze_encoder(True)
    x = images(2, 3, 64, 96)
    with torch.no_grad():
        everything, features = model.encoder((x - model.mean) / model.std), model.encode(x)
        torch.manual_seed(0)
        logits = model.decode(features)
        assert [each.shape for each in features] == [each.shape for each in everything]
        for place, (feature, full) in enumerate(zip(features, everything, strict=True)):
            assert feature.is_meta or torch.equal(feature, full)  # and decoding wrote nothing there
            if not feature.is_meta:
                other = [*features[:place], feature.flip(0), *features[place + 1 :]]
                torch.manual_seed(0)
                assert not torch.equal(model.decode(other), logits), place
    assert [place for place, each in enumerate(features) if each.is_meta] == {
        "unet": [0],
        "deeplabv3plus": [0, 1, 3, 4],
        "sam_conv": [0, 1, 2, 3],
        "sam_unet": [4],
    }[built[1]]


def test_parameter_counts(model: RoofModel, built: tuple[RoofModel, str, str]) -> None:
    total, decoder = MODELS[built[1], built[2]]
    count = sum(p.numel() for p in model.parameters())
    decoder_count = sum(p.numel() for p in model.decoder_parameters())
    encoder_count = sum(p.numel() for p in model.encoder_parameters())
    assert round(count / 1e6, 1) == total
    assert round(decoder_count / 1e6, 1) == decoder
    assert count == decoder_count + encoder_count


def test_dropout_is_in_the_decoder_alone(
    model: RoofModel, built: tuple[RoofModel, str, str]
) -> None:
    assert active_dropouts(model) == DROPOUTS[built[1]]
    assert all(model.get_submodule(name).p == 0.3 for name in active_dropouts(model))
    with torch.no_grad():
        model.eval()
        features = model.encoder(images(2, 3, 64, 64))
        assert torch.equal(model.decoder(features), model.decoder(features))
        for name in active_dropouts(model):
            model.eval()
            model.get_submodule(name).train()
            assert not torch.equal(model.decoder(features), model.decoder(features)), name


@pytest.mark.parametrize("architecture", ["unet", "deeplabv3plus"])
def test_dropout_zero_turns_all_dropout_off(architecture: str) -> None:
    assert active_dropouts(build(architecture, LITE0, dropout=0.0)) == []


@pytest.mark.parametrize("decoder", [sam.ConvDecoder, sam.UnetDecoder])
def test_dropout_zero_turns_it_off_in_sam_decoders(decoder: type[nn.Module]) -> None:
    assert active_dropouts(decoder(0.0)) == []


def test_every_dropout_layer_of_torch_is_turned_off_in_encoders() -> None:
    layers = [layer(0.5) for name, layer in vars(nn).items() if "Dropout" in name]
    assert len(layers) >= 6
    cnn._without_dropout(nn.Sequential(*layers))
    assert [layer.p for layer in layers] == [0.0] * len(layers)


@pytest.mark.parametrize("encoder", ["efficientnet-b0", "mit_b0", "tu-tf_efficientnet_lite0"])
def test_dropout_inside_encoders_is_turned_off(encoder: str) -> None:
    """smp's efficientnet-b0 and mit_b0 have stochastic depth unless it is turned off."""
    model = build("unet", encoder)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        once, again = model.encoder(x)[-1], model.encoder(x)[-1]
    assert torch.equal(once, again)


def test_a_frozen_encoder_does_not_change(model: RoofModel) -> None:
    model.freeze_encoder(True)
    assert not any(layer.training for layer in model.encoder.modules())
    model.train()
    before = moving(model.encoder)
    model(images(2, 3, 64, 64)).square().mean().backward()
    assert not any(layer.training for layer in model.encoder.modules())
    assert all(layer.training for layer in model.decoder.modules())
    for name, value in moving(model.encoder).items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.encoder_parameters())
    assert all(p.grad is not None for p in model.decoder_parameters())
    assert sum(p.grad.abs().sum() for p in model.decoder_parameters()) > 0
    assert all(p.requires_grad for p in model.parameters())


def test_a_thawed_encoder_is_trained(model: RoofModel, built: tuple[RoofModel, str, str]) -> None:
    model.freeze_encoder(True)
    model.freeze_encoder(False)
    assert all(layer.training for layer in model.modules())
    before = moving(model.encoder)
    model(images(2, 3, 64, 64)).square().mean().backward()
    assert all(not torch.equal(v, before[name]) for name, v in moving(model.encoder).items())
    # SAM's neck is not used by the U-Net decoder. (A bias before the softmax over positions may
    # get a gradient of zero, but it gets one.)
    unused = {"neck"} if built[1] == "sam_unet" else set()
    without = {n.split(".")[0] for n, p in model.encoder.named_parameters() if p.grad is None}
    assert without == unused


def test_thaw_in_eval_mode_stays_in_eval_mode(model: RoofModel) -> None:
    model.eval()
    model.freeze_encoder(True)
    model.freeze_encoder(False)
    assert not any(layer.training for layer in model.modules())


def test_a_size_that_is_not_a_multiple_of_the_stride_is_an_error(model: RoofModel) -> None:
    with pytest.raises(ValueError, match=rf"64x72 pixels; expected multiples of {model.multiple}"):
        model(images(1, 3, 64, 72))


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
        ("fpn", "resnet34", 64, r"architecture: found 'fpn'; expected one of unet,"),
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


@pytest.fixture(scope="module")
def encoder() -> sam.SamEncoder:
    torch.manual_seed(0)
    return sam.SamEncoder().eval()


def test_sam_position_embedding_resizes() -> None:
    embedding = torch.randn(1, 64, 64, 4)
    assert sam.resize_position_embedding(embedding, (64, 64)) is embedding
    assert sam.resize_position_embedding(embedding, (14, 28)).shape == (1, 14, 28, 4)
    flat = sam.resize_position_embedding(torch.full((1, 64, 64, 4), 0.25), (14, 28))
    torch.testing.assert_close(flat, torch.full((1, 14, 28, 4), 0.25))
    # An embedding that depends on the row alone still does.
    rows = torch.linspace(0, 1, 64).view(1, 64, 1, 1).expand(1, 64, 64, 4)
    resized = sam.resize_position_embedding(rows, (14, 28))
    assert (resized.diff(dim=1) > 0).all()
    torch.testing.assert_close(resized, resized[:, :, :1].expand_as(resized))


@pytest.fixture(scope="module")
def published() -> tuple[sam.SamEncoder, ImageEncoderViT]:
    """Ours and segment-anything's own encoder, with the same weights (one copy of them).

    The first three blocks, for time: two with windows, one that attends globally.
    """
    torch.manual_seed(0)
    ours = sam.SamEncoder().eval()
    ours.blocks = ours.blocks[:3]
    for block in ours.blocks:  # zeros until a checkpoint fills them
        nn.init.normal_(block.attn.rel_pos_h, std=0.3)
        nn.init.normal_(block.attn.rel_pos_w, std=0.3)
    with torch.device("meta"):
        theirs = ImageEncoderViT(
            depth=3,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(2, 5, 8, 11),
        ).eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)
    return ours, theirs


@pytest.mark.parametrize("size", [(64, 96), (240, 272)], ids=str)
def test_sam_encoder_is_metas_at_another_size(
    published: tuple[sam.SamEncoder, ImageEncoderViT], size: tuple[int, int]
) -> None:
    """Compare with a resized position embedding, for part of a window and for several windows."""
    ours, theirs = published
    tokens = size[0] // 16, size[1] // 16
    theirs.pos_embed = nn.Parameter(sam.resize_position_embedding(ours.pos_embed, tokens).detach())
    x = images(1, 3, *size)

    def run(net: nn.Module, bfloat16: bool) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = net(x)
        return (out[-1] if net is ours else out).float()

    exact = run(theirs, False)
    assert exact.shape == (1, 256, *tokens)
    torch.testing.assert_close(run(ours, False), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(run(ours, True), run(ours, True))
    assert {type(block.attn) for block in ours.blocks} == {sam.FusedAttention}
    # bfloat16 has 8 bits; segment-anything's own result has a similar error.
    error, their_error = ((run(net, True) - exact).std() for net in (ours, theirs))
    assert error < 0.02 * exact.std()
    assert error < 1.2 * their_error


def attentions(height: int, width: int) -> tuple[sam.FusedAttention, Attention]:
    """Ours and segment-anything's, in float64, with the same weights for ``height`` x ``width``."""
    torch.manual_seed(0)
    ours, theirs = (
        kind(32, num_heads=2, use_rel_pos=True, input_size=(height, width)).double()
        for kind in (sam.FusedAttention, Attention)
    )
    nn.init.normal_(theirs.rel_pos_h)
    nn.init.normal_(theirs.rel_pos_w)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# Batch, height and width: several windows; resized relative positions; more than one slice.
TOKENS = [(5, 14, 14), (2, 5, 9), (2, 40, 30)]


@pytest.mark.parametrize("tokens", TOKENS, ids=str)
def test_sam_attention_is_metas(
    tokens: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = attentions(14, 14)
    x = torch.randn(*tokens, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x)
        with Operators() as used:
            out = ours(x)
        torch.testing.assert_close(out, expected)
        assert out.shape == x.shape
        monkeypatch.setattr(sam, "SLICE", 1)  # each head in a slice of its own
        assert torch.equal(ours(x), out)
    # Fused: the matrix over all pairs of tokens is never stored.
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in used.names
    assert "aten::_softmax" not in used.names


class Operators(TorchDispatchMode):
    """Records which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tokens", TOKENS[:2], ids=str)
def test_sam_attention_has_metas_gradients(tokens: tuple[int, int, int]) -> None:
    x = torch.randn(*tokens, 32, dtype=torch.float64)
    weights = torch.randn_like(x)
    gradients = []
    for net in attentions(14, 14):
        inputs = x.clone().requires_grad_()
        (net(inputs) * weights).sum().backward()
        gradients.append({"x": inputs.grad} | {n: p.grad for n, p in net.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[1].items():
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(gradients[0][name], expected, msg=lambda m, n=name: f"{n}: {m}")


def test_sam_fused_attention_has_the_gradients_of_the_plain_formula() -> None:
    """With gradients only GPUs use the fused attention, but its code also runs on a CPU."""
    heads, height, width, channels = 3, 4, 5, 6
    shapes = [(heads, height * width, n) for n in (channels, channels, channels, height, width)]
    torch.manual_seed(0)
    parts = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    q, k, v, rel_h, rel_w = parts
    bias = rel_h.repeat_interleave(width, dim=-1) + rel_w.tile(height)
    plain = (q @ k.transpose(1, 2) / channels**0.5 + bias).softmax(-1) @ v
    fused = sam._attend(*parts)
    torch.testing.assert_close(fused, plain)
    weights = torch.randn_like(plain)
    for found, expected in zip(
        torch.autograd.grad((fused * weights).sum(), parts),
        torch.autograd.grad((plain * weights).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_sam_skips_are_blocks_3_6_9_12(encoder: sam.SamEncoder) -> None:
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, __, out, number=number: seen.__setitem__(number, out))
        for number, block in enumerate(encoder.blocks, start=1)
    ]
    with torch.no_grad():
        features = encoder(images(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert len(features) == 5
    for number, feature in zip((3, 6, 9, 12), features, strict=False):
        assert torch.equal(feature, seen[number])
        assert feature.shape == (1, 4, 4, 768)
    # These blocks attend globally; the others within windows of 14 tokens.
    windows = [block.window_size for block in encoder.blocks]
    assert windows == [14, 14, 0] * 4


def test_sam_position_reaches_a_random_encoder(encoder: sam.SamEncoder) -> None:
    with torch.no_grad():
        first = encoder(torch.zeros(1, 3, 64, 64))[0].flatten(1, 2)
    assert (first[0, 1:] - first[0, 0]).abs().amax(dim=1).min() > 0


@pytest.mark.parametrize("decoder", [sam.ConvDecoder, sam.UnetDecoder])
def test_sam_decoders_fit_random_features(decoder: type[nn.Module]) -> None:
    """The SAM decoders can be trained on a frozen encoder with random weights."""
    torch.manual_seed(0)
    net = decoder(0.0)
    features = [torch.randn(2, 2, 2, 768) for _ in range(4)] + [torch.randn(2, 256, 2, 2)]
    truth = torch.zeros(2, 1, 32, 32)
    truth[0, :, :16], truth[1, :, :, 16:] = 1, 1
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(12):
        logits = net(features)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.shape == truth.shape
    assert ((logits > 0) == (truth > 0)).float().mean() > 0.95


def test_sam_unet_ignores_the_magnitude_of_tokens() -> None:
    """The magnitude of tokens grows from block to block and differs between positions."""
    torch.manual_seed(0)
    net = sam.UnetDecoder(0.0)
    features = [torch.randn(1, 2, 2, 768) for _ in range(4)]
    scaled = [tokens * torch.empty(1, 2, 2, 1).uniform_(0.5, 20) for tokens in features]
    with torch.no_grad():
        torch.testing.assert_close(net(features), net(scaled), rtol=1e-3, atol=1e-3)


def test_every_architecture_has_a_builder() -> None:
    assert BUILDERS.keys() == ARCHITECTURES.keys()


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
