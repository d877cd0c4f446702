"""The ViTs of timm as encoders, compared with timm's own forward pass."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812 (the name that all PyTorch code uses)
from tiers import cases
from torch import nn

from roofseg.models import vit

# By encoder: pixels of a patch, number of class and register tokens.
PLAIN = {
    "tu-vit_small_patch14_dinov2": (14, 1),
    "tu-vit_small_patch14_reg4_dinov2": (14, 5),
    "tu-vit_small_patch16_dinov3": (16, 5),
    "tu-vit_tiny_patch16_224.augreg_in21k": (16, 1),
    "tu-vit_base_patch14_dinov2": (14, 1),
    "tu-vit_base_patch16_dinov3": (16, 5),
}
SAM2 = ["tu-sam2_hiera_tiny", "tu-sam2_hiera_small", "tu-sam2_hiera_base_plus"]
LARGE = ["tu-vit_base_patch14_dinov2", "tu-vit_base_patch16_dinov3", *SAM2[1:]]
SIZE = (64, 96)


def images() -> torch.Tensor:
    return torch.rand((2, 3, *SIZE), generator=torch.Generator().manual_seed(1))


def ours_and_theirs(name: str, model: str, **options: bool) -> tuple[nn.Module, nn.Module]:
    """Our encoder and timm's model, with the same weights; timm's has no others but its head's."""
    torch.manual_seed(0)
    ours = vit.build_encoder(name).eval()
    for key, parameter in ours.named_parameters():
        if "gamma" in key:  # scales of branches, which start near zero: blocks would hardly matter
            nn.init.constant_(parameter, 0.5)
    theirs = timm.create_model(model, num_classes=0, **options).eval()
    theirs.head = nn.Identity()
    weights = {key: each for key, each in ours.state_dict().items() if key.startswith("model.")}
    theirs.load_state_dict({key.removeprefix("model."): each for key, each in weights.items()})
    return ours, theirs


@pytest.mark.parametrize("name", cases(PLAIN, whole=LARGE))
def test_a_plain_vit_is_timms(name: str) -> None:
    patch, prefix = PLAIN[name]
    ours, theirs = ours_and_theirs(name, name.removeprefix("tu-"), dynamic_img_size=True)
    blocks: list[torch.Tensor] = []
    for block in theirs.blocks:
        block.register_forward_hook(lambda _, __, out: blocks.append(out))
    x = images()
    size = tuple(side // 16 * patch for side in SIZE)
    with torch.no_grad():
        features = ours(x)
        final = theirs.forward_features(
            x if patch == 16 else F.interpolate(x, size, mode="bilinear", antialias=True)
        )
    assert ours.shapes.prefix_tokens
    width = final.shape[-1]
    for number, skip, tokens in zip((3, 6, 9, 12), features, features[5:], strict=False):
        block = blocks[number - 1]
        torch.testing.assert_close(tokens, block[:, :prefix])
        torch.testing.assert_close(skip, block[:, prefix:].reshape(2, 4, 6, width))
    last = final[:, prefix:].reshape(2, 4, 6, width).permute(0, 3, 1, 2)
    torch.testing.assert_close(features[4], last)
    assert len(features) == 9


@pytest.mark.parametrize("name", cases(SAM2, whole=LARGE))
def test_sam_2_is_timms(name: str) -> None:
    ours, theirs = ours_and_theirs(name, name.removeprefix("tu-"))
    x = images()
    with torch.no_grad():
        *stages, final = ours(x)
        torch.testing.assert_close(stages[-1], theirs.forward_features(x))
        expected = theirs.forward_intermediates(x, intermediates_only=True)
    for stage, theirs_too in zip(stages, expected, strict=True):
        torch.testing.assert_close(stage, theirs_too.permute(0, 2, 3, 1))
    assert torch.equal(final, stages[-1].permute(0, 3, 1, 2))
    assert [SIZE[0] // stage.shape[1] for stage in stages] == [4, 8, 16, 32]


def test_mobile_sam_is_timms_tiny_vit_with_sams_geometry_and_neck() -> None:
    ours, theirs = ours_and_theirs("mobile_sam", "tiny_vit_5m_224")
    with torch.no_grad():
        *stages, final = ours(images())
        expected = theirs.forward_intermediates(images(), intermediates_only=True)
        for stage, theirs_too in zip(stages[:3], expected, strict=False):
            torch.testing.assert_close(stage, theirs_too.permute(0, 2, 3, 1))
        assert [each.shape[1] for each in stages] == [16, 8, 4, 4]
        # The strided convolution of timm sees every second position of ours, and no other.
        downsample = ours.model.stages[3].downsample
        third = stages[2].permute(0, 3, 1, 2)
        dense = downsample.conv2(downsample.act1(downsample.conv1(third)))
        theirs_too = theirs.stages[3].downsample
        strided = theirs_too.conv2(theirs_too.act1(theirs_too.conv1(third)))
        torch.testing.assert_close(dense[:, :, ::2, ::2], strided)
    assert final.shape == (2, 256, 4, 6)
    names = [name for name, _ in ours.neck.named_parameters()]
    assert names == ["0.weight", "1.weight", "1.bias", "2.weight", "3.weight", "3.bias"]


def test_mobile_sam_keeps_no_biases_of_earlier_weights() -> None:
    """timm's attention caches them in eval mode, also those of weights that are then replaced."""
    torch.manual_seed(0)
    ours = vit.build_encoder("mobile_sam").eval()
    with torch.no_grad():
        before = ours(images())[-1]
        for name, parameter in ours.named_parameters():
            if name.endswith("attention_biases"):
                nn.init.normal_(parameter, std=3)
        assert not torch.allclose(ours(images())[-1], before, atol=1e-3)


def test_position_reaches_a_random_plain_vit() -> None:
    torch.manual_seed(0)
    encoder = vit.build_encoder("tu-vit_tiny_patch16_224")
    with torch.no_grad():
        first = encoder(torch.zeros(1, 3, *SIZE))[0].flatten(1, 2)
    assert (first[0, 1:] - first[0, 0]).abs().amax(dim=1).min() > 0
