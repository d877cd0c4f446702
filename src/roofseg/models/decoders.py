"""Decoders over the features of a vision transformer: `ConvDecoder`, `UnetDecoder`, `DptDecoder`.

The first two use group normalisation within each image (Wu & He 2018, "Group Normalization"):
beside a ViT only two patches of 1024 px fit into a batch, too few for the statistics of BatchNorm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from torch import nn

GROUPS = 8
SKIPS = 4
FINAL = SKIPS  # the index of the final features in the encoder's list


@dataclass(frozen=True)
class FeatureShapes:
    """The shapes of the features that a ViT returns.

    The features are a list: four skips (B, h, w, C) from shallow to deep; the final features
    (B, C, h, w); and, if there are class or register tokens, these tokens (B, N, C) at each skip.

    Attributes:
        channels: channels of the skips
        strides: pixels along the side of a token of each skip; a power of two
        final_channels, final_stride: the same of the final features
        prefix_tokens: whether there are class or register tokens
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    final_channels: int
    final_stride: int
    prefix_tokens: bool = False


class ConvDecoder(nn.Module):
    """Transposed convolutions from the final features to full resolution (SAM: 1.8 M parameters).

    SAM's own mask decoder also upscales by transposed convolutions, but only fourfold.

    Shape:
        - features[4]: (B, C, h, w), the final features at stride s
        - returns: logits (B, 1, s*h, s*w)
    """

    def __init__(self, shapes: FeatureShapes, dropout: float) -> None:
        super().__init__()
        self.entry = _convolution(shapes.final_channels, 256)
        widths = [256] * (int(math.log2(shapes.final_stride)) - 2) + [128, 64, 32]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_upsampling(wide, narrow), _convolution(narrow, narrow))
                for wide, narrow in pairwise(widths)
            )
        )
        self.head = _head(32, dropout)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.head(self.stages(self.entry(features[FINAL])))


class UnetDecoder(nn.Module):
    """A U-Net decoder over four skips of the encoder (SAM ViT-B: 6.6 M parameters).

    The deepest skip is the bottleneck; each of the others is merged at twice the resolution of the
    one below it. All blocks of a plain ViT have one resolution. As in UNETR (Hatamizadeh et al.
    2022, "UNETR: Transformers for 3D Medical Image Segmentation", figure 2), transposed
    convolutions upscale each skip to the resolution it has in a U-Net: SAM's block 12 stays at 1/16
    as the bottleneck, block 9 goes to 1/8, block 6 to 1/4, block 3 to 1/2. The skips of a
    hierarchical ViT already have their resolutions. Unlike UNETR it has no skip from the image
    itself.

    Shape:
        - features[:4]: (B, h, w, C) each
        - returns: logits (B, 1, H, W), H and W those of the image
    """

    def __init__(self, shapes: FeatureShapes, dropout: float) -> None:
        super().__init__()
        *shallow, deep = shapes.channels
        *strides, stride = shapes.strides
        self.bottleneck = nn.Sequential(_Project(deep, 512), _convolution(512, 512))
        widths = ((512, 256), (256, 128), (128, 64))
        skips = []
        for channels, of_skip, (_, width) in zip(
            reversed(shallow), reversed(strides), widths, strict=True
        ):
            stride //= 2  # of the features that the skip is merged with
            doublings = int(math.log2(of_skip // stride))
            skips.append(
                nn.Sequential(
                    _Project(channels, width),
                    *(_upsampling(width, width) for _ in range(doublings)),
                )
            )
        self.skips = nn.ModuleList(skips)
        self.ups = nn.ModuleList(_upsampling(wide, width) for wide, width in widths)
        self.merges = nn.ModuleList(
            nn.Sequential(_convolution(2 * width, width), _convolution(width, width))
            for _, width in widths
        )
        last = [_upsampling(64, 32), _convolution(32, 32)]
        for _ in range(int(math.log2(stride)) - 1):
            last += [_upsampling(32, 32), _convolution(32, 32)]
        self.last = nn.Sequential(*last)
        self.head = _head(32, dropout)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        *shallow, deep = features[:SKIPS]
        x = self.bottleneck(deep)
        for tokens, skip, up, merge in zip(
            reversed(shallow), self.skips, self.ups, self.merges, strict=True
        ):
            x = merge(torch.cat([up(x), skip(tokens)], dim=1))
        return self.head(self.last(x))


class DptDecoder(nn.Module):
    """The decoder of DPT (Ranftl et al. 2021, "Vision Transformers for Dense Prediction"), of smp.

    It brings the four skips to strides 4, 8, 16 and 32 and fuses them from deep to shallow. A class
    token is read beside the other tokens of its block ("cat" in smp).

    Shape:
        - features[:4]: (B, h, w, C) each; features[5:], if any: (B, N, C), the class token first
        - returns: logits (B, 1, H, W), H and W those of the image
    """

    def __init__(self, shapes: FeatureShapes, dropout: float) -> None:
        super().__init__()
        self.decoder = DPTDecoder(
            encoder_out_channels=shapes.channels,
            encoder_output_strides=shapes.strides,
            encoder_has_prefix_tokens=shapes.prefix_tokens,
            readout="cat" if shapes.prefix_tokens else "ignore",
        )
        self.head = DPTSegmentationHead(in_channels=256, out_channels=1)
        initialize_decoder(self.decoder)
        initialize_head(self.head)
        # Dropout2d for the reason given in roofseg.models.cnn.SmpDecoder; smp has Dropout(0.1).
        self.head.head[3] = nn.Dropout2d(dropout)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        skips = [tokens.permute(0, 3, 1, 2).contiguous() for tokens in features[:SKIPS]]
        prefixes: list[Any] = features[FINAL + 1 :] or [None] * SKIPS
        return self.head(self.decoder(skips, prefixes))


class _Project(nn.Module):
    """Projects tokens (B, h, w, C) from inside the encoder to features (B, width, h, w).

    It normalises first: the magnitude of tokens grows from block to block, in random encoders and
    in SAM's, and the decoder should see all blocks at one scale.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Conv2d(channels, width, kernel_size=1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.project(self.norm(tokens).permute(0, 3, 1, 2))


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.GELU(),
    )


def _upsampling(inputs: int, outputs: int) -> nn.Sequential:
    """Double height and width. Kernel 2 at stride 2 has no overlaps, so no checkerboard pattern."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.GELU(),
    )


def _head(inputs: int, dropout: float) -> nn.Sequential:
    # Dropout2d for the reason given in roofseg.models.cnn.SmpDecoder.
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(inputs, 1, kernel_size=1))
