"""The names of architectures and priors, and the check that an encoder fits them.

`roofseg.models.roof_model` builds the architectures and `roofseg.priors` makes the priors. This
module imports neither, so that stages without torch do not wait for its import.
"""

from __future__ import annotations

from roofseg.core.errors import UserError

SAM_ENCODER = "sam_vit_b"

ARCHITECTURES: dict[str, bool] = {  # True: takes only SAM's encoder; False: takes any other encoder
    "unet": False,
    "deeplabv3plus": False,
    "sam_conv": True,
    "sam_unet": True,
}

PRIOR_ENCODERS: dict[str, str | None] = {
    "scratch": None,  # holds no weights, so it fits any encoder
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
        expected = SAM_ENCODER if takes_sam else f"any encoder but {SAM_ENCODER}"
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
