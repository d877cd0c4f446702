"""Which encoder each prior fits: names alone, so that parameters are checked without loading any.

`roofseg.priors` makes and loads them.
"""

from __future__ import annotations

from roofseg.errors import UserError

SAM_ENCODER = "sam_vit_b"

PRIOR_ENCODERS: dict[str, str | None] = {
    "scratch": None,  # nothing to load: fits any
    "efficientnet_lite0_imagenet": "tu-tf_efficientnet_lite0",
    "resnet34_imagenet": "resnet34",
    "sam_vit_b": SAM_ENCODER,
}


def check_prior(prior: str, encoder: str) -> None:
    """Raise UserError unless ``prior`` exists and fits ``encoder`` (``scratch`` fits all)."""
    if prior not in PRIOR_ENCODERS:
        raise UserError(f"found {prior!r}; expected one of {', '.join(PRIOR_ENCODERS)}")
    fits = PRIOR_ENCODERS[prior]
    if fits not in (None, encoder):
        others = [name for name, other in PRIOR_ENCODERS.items() if other in (None, encoder)]
        raise UserError(
            f"found {prior!r}, which holds weights of encoder {fits}, with encoder {encoder}; "
            f"expected one of {', '.join(others)}"
        )
