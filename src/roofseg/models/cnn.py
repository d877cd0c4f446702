"""CNN decoders over any encoder of segmentation-models-pytorch (smp)."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from roofseg.core.errors import UserError

ENCODER_LIST = "https://smp.readthedocs.io/en/latest/encoders.html"
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# The statistics of those of smp's own encoders that were not trained with ImageNet's, by the start
# of their names. smp downloads statistics from its hub, but training must work without a network.
# Source: `mean` and `std` in smp 0.3's encoder modules, before they moved to the hub.
OTHER_STATISTICS: dict[str, Statistics] = {
    "inception": HALF,
    "xception": HALF,
    "dpn": ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
}


class SmpDecoder(nn.Module):
    """An smp decoder and its head, with dropout between them.

    Dropout2d drops whole channels, not single values: neighbouring pixels of a feature map are so
    alike that the head could read a dropped value from the next pixel (Tompson et al. 2015,
    "Efficient Object Localization Using Convolutional Networks", section 3.2).
    """

    def __init__(self, decoder: nn.Module, head: nn.Module, dropout: float) -> None:
        super().__init__()
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.head = head

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.head(self.dropout(self.decoder(features)))


def unet(encoder: str, dropout: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of smp's U-Net (Ronneberger et al. 2015)."""
    return _split(smp.Unet, encoder, dropout)


def deeplabv3plus(encoder: str, dropout: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of smp's DeepLabV3+ (Chen et al. 2018), output stride 16.

    The dropout inside the ASPP module, 0.5 by default in smp, is ``dropout`` too.
    """
    return _split(smp.DeepLabV3Plus, encoder, dropout, decoder_aspp_dropout=dropout)


def fpn(encoder: str, dropout: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of smp's FPN (Lin et al. 2017; Kirillov et al. 2019 for segmentation)."""
    # Its own dropout would act on the same features as that of `SmpDecoder`.
    return _split(smp.FPN, encoder, dropout, decoder_dropout=0.0)


def upernet(encoder: str, dropout: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of smp's UPerNet (Xiao et al. 2018)."""
    return _split(smp.UPerNet, encoder, dropout)


def segformer(encoder: str, dropout: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of smp's SegFormer (Xie et al. 2021); its encoders are mit_b0 to 5."""
    return _split(smp.Segformer, encoder, dropout)


def statistics(encoder: str) -> Statistics:
    """Mean and standard deviation per RGB channel, on [0, 1], that ``encoder`` was trained with.

    An encoder without a prior uses the same statistics, so that it differs from the pretrained one
    only in its weights.
    """
    if encoder.startswith("tu-"):
        pretrained = timm.models.get_pretrained_cfg(encoder.removeprefix("tu-"))
        return (tuple(pretrained.mean), tuple(pretrained.std)) if pretrained else IMAGENET
    return next((s for start, s in OTHER_STATISTICS.items() if encoder.startswith(start)), IMAGENET)


def _split(
    build: Callable[..., smp.base.SegmentationModel], encoder: str, dropout: float, **options: float
) -> tuple[nn.Module, nn.Module]:
    check_encoder(encoder)
    try:
        model = build(encoder, encoder_weights=None, classes=1, activation=None, **options)
    except (ValueError, TypeError, LookupError, RuntimeError, AssertionError) as error:
        # Each family of encoders raises another error for an unsupported option (dilation, depth).
        raise UserError(
            f"encoder: found {encoder!r}, which {build.__name__} cannot use ({error}). "
            f"Choose another from {ENCODER_LIST}, for example resnet34."
        ) from error
    without_dropout(model.encoder)
    _dilated_depthwise_in_float32(model)
    return model.encoder, SmpDecoder(model.decoder, model.segmentation_head, dropout)


def check_encoder(encoder: str) -> None:
    """Raise UserError unless smp knows ``encoder``."""
    # smp warns that its "timm-" encoders are deprecated; each has a "tu-" equivalent.
    known = [name for name in smp.encoders.get_encoder_names() if not name.startswith("timm-")]
    known += [f"tu-{name}" for name in timm.list_models(pretrained=False)]
    name, _, tag = encoder.removeprefix("tu-").partition(".")
    if encoder in known or (tag and f"{name}.{tag}" in timm.list_pretrained(f"{name}.*")):
        return
    close = difflib.get_close_matches(encoder, known, n=3)
    hint = f"Similar names: {', '.join(close)}. " if close else ""
    raise UserError(
        f"encoder: found {encoder!r}; expected an encoder of segmentation-models-pytorch, such as "
        "resnet34, or tu-NAME for a model of timm, or a SAM encoder with a ViT architecture. "
        f"{hint}The list: {ENCODER_LIST}"
    )


def without_dropout(encoder: nn.Module) -> None:
    """Turn off dropout, stochastic depth and random positions, which some encoders have.

    The recipe's dropout acts in the decoder alone; hidden dropout would differ between encoders.
    """
    for module in encoder.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):  # all kinds of dropout
            module.p = 0.0
        for rate in ("drop_prob", "drop_rate", "_drop_connect_rate"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
        if hasattr(module, "aug_active"):  # timm's rotary position embeddings
            setattr(module, "aug_active", False)  # noqa: B010 (mypy sees a tensor there)


class _Float32OnCpu(nn.Module):
    """Mixin for a module that leaves CPU autocast in its forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def _dilated_depthwise_in_float32(model: nn.Module) -> None:
    """Keep dilated depthwise convolutions in float32 on CPUs, whatever the precision of the run.

    torch 2.14.1's bfloat16 kernel for the gradient of their weights (oneDNN, channels_last) reads
    memory that it never wrote: the gradient differs from call to call, is wrong by 70 % of its
    largest value at best, and is NaN at worst, which sooner or later ends a run of DeepLabV3+.
    Their forward pass, the gradient of their input, and all other convolutions are right. In
    float32 these layers are also faster.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and max(module.dilation) > 1:
            # A subclass, not a wrapper, so that the names of the weights stay. Some encoders have
            # subclasses of Conv2d whose arguments are unknown here, so change the module's class,
            # as torch.nn.utils.parametrize does. If this stops working with another version of
            # torch, smp or timm, test_gradients_under_bfloat16_are_right_and_repeat fails.
            conv = type(module)
            module.__class__ = type(conv.__name__, (_Float32OnCpu, conv), {})
