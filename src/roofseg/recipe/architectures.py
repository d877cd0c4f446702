"""The names of architectures and priors, and the check that an encoder fits them.

`roofseg.models.roof_model` builds the architectures and `roofseg.priors` makes the priors. This
module imports neither, so that stages without torch do not wait for its import.
"""

from __future__ import annotations

from typing import Literal

from roofseg.core.errors import UserError

SAM_ENCODER = "sam_vit_b"
MOBILE_SAM = "mobile_sam"
SAM_ENCODERS = (SAM_ENCODER, "sam_vit_l", MOBILE_SAM)  # those that are not of timm

# The encoders that each architecture takes: any of segmentation-models-pytorch (smp) but SAM's, any
# vision transformer (vit: SAM's, or tu-NAME of timm), or a single encoder.
ARCHITECTURES: dict[str, Literal["smp", "vit", "sam_vit_b"]] = {
    "unet": "smp",
    "deeplabv3plus": "smp",
    "fpn": "smp",
    "upernet": "smp",
    "segformer": "smp",
    "sam_conv": "sam_vit_b",  # vit_conv and vit_unet with SAM's ViT-B
    "sam_unet": "sam_vit_b",
    "vit_conv": "vit",
    "vit_unet": "vit",
    "dpt": "vit",
}

PRIOR_ENCODERS: dict[str, str | None] = {
    "scratch": None,  # holds no weights, so it fits any encoder
    "efficientnet_lite0_imagenet": "tu-tf_efficientnet_lite0",
    "resnet34_imagenet": "resnet34",
    "sam_vit_b": SAM_ENCODER,
}


def is_sam(encoder: str) -> bool:
    """Whether ``encoder`` is an image encoder of SAM, MobileSAM or SAM 2."""
    return encoder in SAM_ENCODERS or encoder.startswith("tu-sam2_hiera_")


def check_architecture(architecture: str, encoder: str) -> None:
    """Raise UserError unless ``architecture`` exists and takes ``encoder``."""
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"architecture: found {architecture!r}; expected one of {', '.join(ARCHITECTURES)}"
        )
    sam = ", ".join(SAM_ENCODERS)
    takes, expected = {
        "smp": (
            not is_sam(encoder),
            f"any encoder of segmentation-models-pytorch, but none of {sam} and SAM 2's "
            "tu-sam2_hiera_*. Those go with vit_conv, vit_unet and dpt",
        ),
        "vit": (
            encoder in SAM_ENCODERS or encoder.startswith("tu-"),
            f"{sam}, or tu-NAME with the name of a vision transformer of timm",
        ),
        SAM_ENCODER: (
            encoder == SAM_ENCODER,
            f"{SAM_ENCODER}. Others go with vit_conv, vit_unet and dpt",
        ),
    }[ARCHITECTURES[architecture]]
    if not takes:
        raise UserError(
            f"encoder: found {encoder!r} with architecture {architecture!r}, which takes {expected}"
        )


def check_prior(prior: str, encoder: str) -> None:
    """Raise UserError unless ``prior`` exists and fits ``encoder`` (``scratch`` fits all)."""
    if prior not in PRIOR_ENCODERS:
        raise UserError(f"prior: found {prior!r}; expected one of {', '.join(PRIOR_ENCODERS)}")
    if PRIOR_ENCODERS[prior] not in (None, encoder):
        fitting = [name for name, fits in PRIOR_ENCODERS.items() if fits in (None, encoder)]
        raise UserError(
            f"prior: found {prior!r}, which holds weights of encoder {PRIOR_ENCODERS[prior]}, with "
            f"encoder {encoder}; expected one of {', '.join(fitting)}"
        )
