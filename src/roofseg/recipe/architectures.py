"""Which encoders go with which architectures and priors, by name, to check parameters.

`models.roof_model` builds the architectures and `priors` makes the priors. This module imports
neither, so that a stage that does not need torch does not wait for its import.
"""

from __future__ import annotations

from roofseg.core.errors import UserError

SAM_ENCODER = "sam_vit_b"

ARCHITECTURES: dict[str, bool] = {  # True: takes SAM's encoder only; False: any other encoder
    "unet": False,
    "deeplabv3plus": False,
    "sam_conv": True,
    "sam_unet": True,
}

PRIOR_ENCODERS: dict[str, str | None] = {
    "scratch": None,  # has no weights, so it fits any encoder
    "efficientnet_lite0_imagenet": "tu-tf_efficientnet_lite0",
    "resnet34_imagenet": "resnet34",
    "sam_vit_b": SAM_ENCODER,
}


def check_architecture(architecture: str, encoder: str) -> None:
    """Raise UserError unless ``architecture`` exists and takes ``encoder``."""
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"architecture: found {architecture!r}; expected one of {', '.join(ARCHITECTURES)}"
        )
    takes_sam = ARCHITECTURES[architecture]
    if takes_sam != (encoder == SAM_ENCODER):
        expected = SAM_ENCODER if takes_sam else f"any but {SAM_ENCODER}"
        raise UserError(
            f"encoder: found {encoder!r} with architecture {architecture!r}, which takes {expected}"
        )


def check_prior(prior: str, encoder: str) -> None:
    """Raise UserError unless ``prior`` exists and fits ``encoder`` (``scratch`` fits all)."""
    if prior not in PRIOR_ENCODERS:
        raise UserError(f"prior: found {prior!r}; expected one of {', '.join(PRIOR_ENCODERS)}")
    fits = PRIOR_ENCODERS[prior]
    if fits not in (None, encoder):
        others = [name for name, other in PRIOR_ENCODERS.items() if other in (None, encoder)]
        raise UserError(
            f"prior: found {prior!r}, which holds weights of encoder {fits}, with encoder "
            f"{encoder}; expected one of {', '.join(others)}"
        )
