"""The decoders over ViTs, on random features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from roofseg.models.decoders import ConvDecoder, DptDecoder, FeatureShapes, UnetDecoder

SAM = FeatureShapes((768,) * 4, (16,) * 4, 256, 16)


@pytest.mark.parametrize("decoder", [ConvDecoder, UnetDecoder, DptDecoder])
def test_dropout_zero_turns_all_dropout_off(decoder: type[nn.Module]) -> None:
    layers = [m for m in decoder(SAM, 0.0).modules() if "Dropout" in type(m).__name__]
    assert [layer.p for layer in layers] == [0.0]


@pytest.mark.parametrize("strides", [(16, 16, 16, 16), (4, 8, 16, 16), (4, 8, 16, 32)], ids=str)
@pytest.mark.parametrize("decoder", [ConvDecoder, UnetDecoder, DptDecoder])
def test_features_of_any_geometry_become_one_logit_per_pixel(
    decoder: type[nn.Module], strides: tuple[int, ...]
) -> None:
    channels, height, width = (8, 16, 24, 32), 64, 96
    net = decoder(FeatureShapes(channels, strides, 40, strides[-1]), 0.0)
    skips = [
        torch.randn(2, height // stride, width // stride, each)
        for each, stride in zip(channels, strides, strict=True)
    ]
    final = torch.randn(2, 40, height // strides[-1], width // strides[-1])
    assert net([*skips, final]).shape == (2, 1, height, width)


@pytest.mark.whole
@pytest.mark.parametrize("decoder", [ConvDecoder, UnetDecoder])
def test_sam_decoders_fit_random_features(decoder: type[nn.Module]) -> None:
    """The SAM decoders can be trained on a frozen encoder with random weights."""
    torch.manual_seed(0)
    net = decoder(SAM, 0.0)
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
    net = UnetDecoder(SAM, 0.0)
    features = [torch.randn(1, 2, 2, 768) for _ in range(4)]
    scaled = [tokens * torch.empty(1, 2, 2, 1).uniform_(0.5, 20) for tokens in features]
    with torch.no_grad():
        torch.testing.assert_close(net(features), net(scaled), rtol=1e-3, atol=1e-3)
