"""Vision transformers of timm as encoders, MobileSAM's among them, beside `roofseg.models.sam`.

Plain ViTs (DINOv2, DINOv3 and others with patches of 14 or 16 px) have one resolution, 1/16.
Hierarchical ones (SAM 2's Hiera, MobileSAM's TinyViT) have four stages. All take any size that is a
multiple of 32 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import timm
import torch
import torch.nn.functional as F  # noqa: N812 (the name that all PyTorch code uses)
from segment_anything.modeling.common import LayerNorm2d  # type: ignore[import-untyped]
from timm.models.eva import Eva
from timm.models.tiny_vit import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from roofseg.core.errors import UserError
from roofseg.models import cnn, sam
from roofseg.models.decoders import SKIPS, FeatureShapes
from roofseg.models.sam import NECK, TOKEN, SamEncoder
from roofseg.recipe.architectures import MOBILE_SAM, SAM_ENCODERS

EXAMPLES = "tu-vit_small_patch14_dinov2, tu-vit_small_patch16_dinov3, tu-sam2_hiera_tiny"


class Encoder(Protocol):
    """An encoder that returns the features that ``shapes`` describes."""

    shapes: FeatureShapes


def build(
    decoder: Callable[[FeatureShapes, float], nn.Module],
) -> Callable[[str, float], tuple[nn.Module, nn.Module]]:
    """A function that builds a ViT by its name, and over it ``decoder`` with its dropout."""

    def build_both(encoder: str, dropout: float) -> tuple[nn.Module, nn.Module]:
        module = build_encoder(encoder)
        return module, decoder(cast(Encoder, module).shapes, dropout)

    return build_both


def build_encoder(name: str) -> nn.Module:
    """Build a ViT with random weights, without dropout and stochastic depth.

    Args:
        name: ``sam_vit_b``, ``sam_vit_l``, ``mobile_sam``, or ``tu-NAME`` for a plain ViT or a
            SAM 2 Hiera of timm

    Raises:
        UserError: there is no such encoder, or it is of another kind
    """
    if name in sam.SIZES:
        return SamEncoder(name)
    if name == MOBILE_SAM:
        return MobileSamEncoder()
    cnn.check_encoder(name)
    model = name.removeprefix("tu-")
    try:
        return HieraEncoder(model) if model.startswith("sam2_hiera_") else PlainEncoder(model)
    except (ValueError, TypeError, LookupError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"encoder: found {name!r}, which no ViT architecture can use ({error}). Expected one "
            f"of {', '.join(SAM_ENCODERS)}, or a ViT of timm with patches of 14 or 16 pixels, or "
            f"SAM 2's Hiera, for example {EXAMPLES}."
        ) from error


def statistics(encoder: str) -> cnn.Statistics:
    """Mean and standard deviation per RGB channel, on [0, 1], that ``encoder`` was trained with."""
    return sam.STATISTICS if encoder in SAM_ENCODERS else cnn.statistics(encoder)


class PlainEncoder(nn.Module):
    """A ViT of timm for any input size that is a multiple of 16 pixels.

    A token stands for 16 px whatever the ViT's patch size is, so that decoders can double the
    resolution up to the image's: for patches of 14 px the image is first resized to 14/16 of its
    size. The parameters keep the prior's native size, and timm resizes the position embedding at
    each call (bicubic with antialiasing, as in `sam.resize_position_embedding`); DINOv3 computes
    rotary embeddings for each size. Parameter names are timm's after ``model.``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model: Any = _timm_model(name, dynamic_img_size=True)
        if not isinstance(self.model, VisionTransformer | Eva):
            raise ValueError(f"in timm it is a {type(self.model).__name__}, not a plain ViT")
        blocks: Any = self.model.feature_info
        width, self.patch = int(blocks[0]["num_chs"]), int(blocks[0]["reduction"])
        if self.patch not in (14, TOKEN):
            raise ValueError(f"its patches have {self.patch} pixels")
        self.skips = [len(blocks) * quarter // SKIPS - 1 for quarter in range(1, SKIPS + 1)]
        self.prefix = self.model.num_prefix_tokens  # the class token, then registers
        self.shapes = FeatureShapes(
            (width,) * SKIPS, (TOKEN,) * SKIPS, width, TOKEN, prefix_tokens=self.prefix > 0
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Encode normalised images.

        Shape:
            - x: (B, 3, H, W), H and W multiples of 16
            - returns: four skips (B, H/16, W/16, C), the outputs of the last block of each quarter;
              the normalised output of the last block (B, C, H/16, W/16); the class and register
              tokens (B, N, C) of each skip, if the ViT has them
        """
        grid = x.shape[-2] // TOKEN, x.shape[-1] // TOKEN
        if self.patch != TOKEN:
            size = [tokens * self.patch for tokens in grid]
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        final, skips = self.model.forward_intermediates(
            x, indices=self.skips, output_fmt="NLC", return_prefix_tokens=self.prefix > 0
        )
        skips, prefixes = zip(*skips, strict=True) if self.prefix else (skips, ())
        return [
            *(tokens.unflatten(1, grid) for tokens in skips),
            final[:, self.prefix :].unflatten(1, grid).permute(0, 3, 1, 2),
            *prefixes,
        ]


class HieraEncoder(nn.Module):
    """The image encoder of SAM 2 (Ravi et al. 2024) without its neck, which timm does not have.

    timm resizes the position embedding at each call. Parameter names are timm's after ``model.``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model: Any = _timm_model(name)
        self.shapes = _stages(self.model)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Encode normalised images.

        Shape:
            - x: (B, 3, H, W), H and W multiples of 32
            - returns: the stages' outputs (B, H/s, W/s, C) with s = 4, 8, 16, 32, then the last of
              them as (B, C, H/32, W/32)
        """
        final, stages = self.model.forward_intermediates(x, output_fmt="NHWC")
        return [*stages, final.permute(0, 3, 1, 2)]


class MobileSamEncoder(nn.Module):
    """The image encoder of MobileSAM (Zhang et al. 2023): TinyViT-5M, then SAM's neck.

    It differs from timm's TinyViT in the last stage, which keeps the resolution of the third, so
    that the output has SAM's stride. Parameter names are timm's after ``model.``, and those of
    SAM's neck after ``neck.``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = _timm_model("tiny_vit_5m_224")
        shapes = _stages(self.model)
        self.shapes = FeatureShapes(shapes.channels, (4, 8, 16, 16), NECK, TOKEN)
        self.model.stages[3].downsample.conv2.conv.stride = (1, 1)
        for module in self.model.modules():
            if isinstance(module, Attention):
                module.__class__ = _UncachedAttention  # the names of the weights stay
        self.neck = nn.Sequential(  # as in segment-anything's ImageEncoderViT
            nn.Conv2d(shapes.final_channels, NECK, kernel_size=1, bias=False),
            LayerNorm2d(NECK),
            nn.Conv2d(NECK, NECK, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(NECK),
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Encode normalised images.

        Shape:
            - x: (B, 3, H, W), H and W multiples of 16
            - returns: the stages' outputs (B, H/s, W/s, C) with s = 4, 8, 16, 16, then the neck's
              output (B, 256, H/16, W/16)
        """
        x = self.model.patch_embed(x)
        skips = []
        for stage in self.model.stages:
            x = stage(x)
            skips.append(x.permute(0, 2, 3, 1))
        return [*skips, self.neck(x)]


class _UncachedAttention(Attention):
    """timm's attention without its cache of biases in eval mode.

    That cache keeps the biases of the weights before a checkpoint is loaded, and tensors without
    values after an export.
    """

    def get_attention_biases(self, device: torch.device) -> torch.Tensor:
        biases: torch.Tensor = self.attention_biases
        return biases[:, cast(torch.Tensor, self.attention_bias_idxs)]


def _timm_model(name: str, **options: Any) -> Any:
    """timm's model without its head, dropout and augmentation."""
    model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    model.head = nn.Identity()  # it may hold a normalisation, which has no weights in SAM
    cnn.without_dropout(model)
    return model


def _stages(model: Any) -> FeatureShapes:
    channels, strides = zip(
        *((int(stage["num_chs"]), int(stage["reduction"])) for stage in model.feature_info),
        strict=True,
    )
    return FeatureShapes(channels, strides, channels[-1], strides[-1])
