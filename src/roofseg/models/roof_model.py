"""The models: an encoder, a decoder, and the normalisation that the encoder expects.

``build_model`` builds any of them. To add an architecture, add a line to ``BUILDERS`` and one to
`roofseg.recipe.architectures.ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from roofseg.core.errors import UserError
from roofseg.core.weights import load_weights, read_weights, write_weights
from roofseg.models import cnn, decoders, lora, sam, vit
from roofseg.recipe.architectures import check_architecture, is_sam
from roofseg.recipe.lora import Lora


class RoofModel(nn.Module):
    """A segmentation model that takes RGB in [0, 1] and normalises inside.

    Args:
        encoder: maps a normalised image to a list of features
        decoder: maps that list to logits
        mean, std: statistics per RGB channel, on [0, 1], that the encoder was trained with
        multiple: height and width must be multiples of this, in pixels
        reads: indices of the features that the decoder reads; None for all

    Shape:
        - input: (B, 3, H, W) float RGB in [0, 1]
        - output: (B, 1, H, W) logits
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        multiple: int,
        reads: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.multiple = multiple
        self.reads = reads
        self.encoder_frozen = False
        self.adapted = False
        # Not in the state dict: they belong to the architecture, not to the trained weights.
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's features of ``x``, for ``decode``.

        To save memory, a feature that the decoder does not read is on the meta device: it has a
        shape and no values. (SAM's four skips are twelve times as large as the neck's output, and
        `decoders.ConvDecoder` reads only the latter.)
        """
        height, width = x.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"found an image of {height}x{width} pixels; expected multiples of {self.multiple}"
            )
        x = (x - self.mean) / self.std
        # Without gradients no activations are kept: most of the memory of a training step.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            features: list[torch.Tensor] = self.encoder(x)
        read = range(len(features)) if self.reads is None else self.reads
        return [
            feature if index in read else torch.empty_like(feature, device="meta")
            for index, feature in enumerate(features)
        ]

    def decode(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Logits (B, 1, H, W) from the features of ``encode``, which are not changed."""
        return self.decoder(features)

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or thaw the encoder.

        A frozen encoder runs in eval mode (its BatchNorm statistics do not change) and without
        gradients. ``requires_grad`` stays True: changing it during a run breaks DDP's
        synchronisation.
        """
        self.encoder_frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> RoofModel:
        """Set train or eval mode, as in torch; a frozen or adapted encoder stays in eval mode."""
        super().train(mode)
        if self.encoder_frozen or self.adapted:
            self.encoder.eval()
        return self

    def adapt(self, settings: Lora | None) -> None:
        """Adapt the encoder, which holds the prior, by LoRA; None leaves it as it is.

        From then on its own weights are frozen, and a thaw is that of the deltas. UserError as in
        `lora.adapt`.
        """
        if settings:
            lora.adapt(self.encoder, settings)
            self.adapted = True
            self.train(self.training)

    def merge(self) -> None:
        """Merge the deltas of an adapted encoder, which then is one as built."""
        if self.adapted:
            lora.merge(self.encoder)
            self.adapted = False

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are trained after the thaw, at their own learning rate."""
        return lora.deltas(self.encoder) if self.adapted else self.encoder.parameters()

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights, without those of the encoder that still equal the initial ones.

        These are all of a frozen encoder, and all but the deltas of an adapted one.
        """

        def constant(name: str) -> bool:
            return self.encoder_frozen or (self.adapted and not lora.is_delta(name))

        return {
            name: value
            for name, value in self.state_dict().items()
            if not (name.startswith("encoder.") and constant(name))
        }

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are trained from the first step: decoder and head."""
        return self.decoder.parameters()


@dataclass(frozen=True)
class Builder:
    """Builds an architecture from an encoder's name and the decoder's dropout."""

    build: Callable[[str, float], tuple[nn.Module, nn.Module]]
    statistics: Callable[[str], cnn.Statistics]
    multiple: int  # pixels: the deepest features' stride
    reads: Sequence[int]  # indices in the encoder's list of features


CONV = vit.build(decoders.ConvDecoder)
UNET = vit.build(decoders.UnetDecoder)
DPT = vit.build(decoders.DptDecoder)

BUILDERS = {
    # smp's encoders return the image itself and then one feature per halving.
    "unet": Builder(cnn.unet, cnn.statistics, multiple=32, reads=(1, 2, 3, 4, 5)),
    "deeplabv3plus": Builder(cnn.deeplabv3plus, cnn.statistics, multiple=32, reads=(2, 5)),
    "fpn": Builder(cnn.fpn, cnn.statistics, multiple=32, reads=(2, 3, 4, 5)),
    "upernet": Builder(cnn.upernet, cnn.statistics, multiple=32, reads=(2, 3, 4, 5)),
    "segformer": Builder(cnn.segformer, cnn.statistics, multiple=32, reads=(1, 2, 3, 4, 5)),
    # ViTs return `decoders.FeatureShapes`: four skips, the final features, then class tokens.
    "sam_conv": Builder(CONV, vit.statistics, multiple=sam.TOKEN, reads=(4,)),
    "sam_unet": Builder(UNET, vit.statistics, multiple=sam.TOKEN, reads=(0, 1, 2, 3)),
    "vit_conv": Builder(CONV, vit.statistics, multiple=32, reads=(4,)),
    "vit_unet": Builder(UNET, vit.statistics, multiple=32, reads=(0, 1, 2, 3)),
    "dpt": Builder(DPT, vit.statistics, multiple=32, reads=(0, 1, 2, 3, 5, 6, 7, 8)),
}


def build_model(
    architecture: str,
    encoder: str,
    *,
    dropout: float,
    patch_size: int,
    statistics: cnn.Statistics | None = None,
) -> RoofModel:
    """Build a model with random weights (from torch's global generator), thawed, in train mode.

    Args:
        architecture: a key of ``BUILDERS``
        encoder: an smp encoder's name such as ``resnet34`` or ``tu-tf_efficientnet_lite0``; for
            the architectures over a ViT, a name as in `vit.build_encoder`
        dropout: probability, [0, 1), of every dropout layer in the decoder; encoders have none
        patch_size: side of the training patches in pixels. The model takes other sizes too
        statistics: mean and standard deviation of the images that the encoder was trained with, per
            RGB channel on [0, 1]; None for those that its library states

    Raises:
        UserError: a key has an unusable value; the message names the key
    """
    check_architecture(architecture, encoder)
    chosen = BUILDERS[architecture]
    if patch_size <= 0 or patch_size % chosen.multiple:
        raise UserError(
            f"patch_size: found {patch_size}; expected a multiple of {chosen.multiple} pixels for "
            f"architecture {architecture!r}"
        )
    parts = chosen.build(encoder, dropout)
    mean, std = statistics or chosen.statistics(encoder)
    return RoofModel(*parts, mean=mean, std=std, multiple=chosen.multiple, reads=chosen.reads)


def build_encoder(encoder: str) -> tuple[nn.Module, cnn.Statistics]:
    """Build an encoder with random weights, and its statistics, as `build_model` builds them.

    Every architecture that takes an encoder gives its tensors the same names.

    Raises:
        UserError: no architecture takes this encoder
    """
    if is_sam(encoder):
        module = vit.build_encoder(encoder)
    else:
        cnn.check_encoder(encoder)
        try:
            module, _ = cnn.unet(encoder, 0.0)
        except UserError:
            if not encoder.startswith("tu-"):
                raise
            module = vit.build_encoder(encoder)  # a plain ViT, whose features have one resolution
    return module, vit.statistics(encoder)


def save_model(path: Path, model: RoofModel) -> None:
    """Write all weights as safetensors; the same weights give the same bytes."""
    write_weights(path, model.state_dict())


def load_model(path: Path, model: RoofModel) -> None:
    """Load a file written by ``save_model``; UserError if it does not hold this model's weights."""
    load_weights(
        model,
        read_weights(path),
        f"{path}: not the weights of this architecture and encoder. Train the attempt again",
    )
