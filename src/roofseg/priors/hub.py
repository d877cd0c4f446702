"""Make a prior of weights that timm or smp offer on huggingface.co, by the encoder's name.

The first download pins the commit and the SHA-256 of the file in the prior's record, which is in
git. Every later one, on any machine, gives the same file or an error.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.core.hub import commit_of, hub_file
from roofseg.models.roof_model import build_encoder
from roofseg.priors.download import first_line
from roofseg.priors.file import Tensors, fit, read_tensors
from roofseg.priors.record import Origin, Statistics, keep_made, write_prior
from roofseg.recipe.priors import HubPrior
from roofseg.tiles.licence import OTHER, Licence, declared_licence

FILE = "model.safetensors"
# The licences of timm's weights that are on the SPDX list; others have names of timm's own.
SPDX = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "mit": "MIT",
}
CONFIG = "config.json"  # in smp's repositories: the statistics of the input


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of huggingface.co.

    ``revision`` may be a branch, or None for main; ``licence`` is that which timm states;
    ``described`` tells whether the repository states the statistics of the input, as smp's do.
    """

    repository: str
    revision: str | None
    name: str
    licence: str | None
    described: bool


def make_hub_prior(name: str, declared: HubPrior, folder: Path) -> tuple[Path, list[str]]:
    """Make the prior ``name``; return the path of its weights, and notes for the user.

    Without a network, weights that were made before are kept; and once a record pins the file, it
    can be put at ``folder``/NAME.source.safetensors by hand.

    Raises:
        UserError: the library knows no such weights, the download failed, the file is not the one
            that the record pins, or its statistics are not those of the encoder
    """
    record = folder / f"{name}.json"
    pinned = read_json(record) if record.is_file() else None
    wanted = find_weights(declared, f"priors.hub.{name}")
    source = f"{wanted.repository}/{wanted.name} on huggingface.co"
    accept = f"To accept other weights, remove {record} and run the same again."
    if pinned and pinned["source"] != source:
        raise UserError(
            f"{record}: pins {pinned['source']}, but priors.hub.{name} now means {source}. {accept}"
        )
    by_hand = folder / f"{name}.source{Path(wanted.name).suffix}"
    decisive = declared.decisive()
    licence = (
        declared_licence(declared.licence) if declared.licence else _licence(wanted.licence, source)
    )
    try:
        path, config, commit = _fetch(wanted, pinned, by_hand)
    except UserError as error:
        if keep_made(folder, name, declared=decisive, encoder=declared.encoder, licence=licence):
            made = folder / f"{name}.safetensors"
            return made, [f"{made} was made before, and is kept, since {error}"]
        raise
    found = sha256_file(path)
    if pinned and found != pinned["source_sha256"]:
        raise UserError(
            f"{path if path == by_hand else source}: found SHA-256 {found}, but {record} pins "
            f"{pinned['source_sha256']} (commit {pinned['revision']}). {accept}"
        )
    encoder, statistics = build_encoder(declared.encoder)
    if declared.mean and declared.std:
        statistics = declared.mean, declared.std
    elif config:
        _check_statistics(config, statistics, f"priors.hub.{name}")
    try:
        stored = read_tensors(path)
        tensors = _loaded(stored, declared, encoder)
    except (RuntimeError, KeyError) as error:  # of load_state_dict, and of its forms in smp
        raise UserError(
            f"{source}: not the weights of encoder {declared.encoder} ({first_line(error)}). Use "
            "others, or a file (priors.files)."
        ) from None
    kinds = {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()}
    tensors, notes = fit(tensors, encoder.state_dict(), source, declared.encoder)
    notes += [f"tensors of {k} became float32" for k in sorted(map(str, kinds - {torch.float32}))]
    origin = Origin(source, commit, found, declared.encoder, statistics, licence, decisive)
    return write_prior(folder, name, tensors, origin), notes


def find_weights(declared: HubPrior, key: str) -> HubFile:
    """Where the library keeps the weights; UserError (it names ``key``) if there are none."""
    encoder = declared.encoder
    if encoder.startswith("tu-"):
        if declared.weights:
            raise UserError(
                f"{key}.weights: timm's weights have their name in the encoder, such as "
                f"{encoder.partition('.')[0]}.TAG. Remove this key."
            )
        name = encoder.removeprefix("tu-")
        try:
            config = timm.models.get_pretrained_cfg(name)
        except RuntimeError:  # another tag than timm's
            config = None
        if not config or not config.hf_hub_id:
            known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
            others = (
                f"; it has {', '.join(known)}. Name one of these" if known else ". Name another"
            )
            raise UserError(
                f"{key}.encoder: timm has no weights on huggingface.co for {name}{others}, or use "
                "a file (priors.files)."
            )
        repository, _, revision = config.hf_hub_id.partition("@")
        file = config.hf_hub_filename or FILE
        return HubFile(repository, revision or None, file, config.license, False)
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {})
    if (declared.weights or "imagenet") not in settings:
        others = (
            f"; it has {', '.join(settings)}. Set `weights` to one of them"
            if settings
            else ". Name another encoder"
        )
        raise UserError(
            f"{key}: smp has no weights {declared.weights or 'imagenet'!r} for encoder "
            f"{encoder!r}{others}, or use a file (priors.files)."
        )
    found = settings[declared.weights or "imagenet"]
    return HubFile(found["repo_id"], found["revision"], FILE, None, True)


def _licence(stated: str | None, source: str) -> Licence:
    """The licence that timm states in its own words, such as apache-2.0 or dinov3-license."""
    if stated in SPDX:
        return declared_licence(SPDX[stated])
    if stated in (None, "", "unknown"):
        return Licence(OTHER, f"Not stated: see {source}.")
    return Licence(OTHER, f"timm states the licence {stated}: see {source}.")


def _fetch(
    wanted: HubFile, pinned: Mapping[str, Any] | None, by_hand: Path
) -> tuple[Path, Path | None, str]:
    """The file, smp's description of it, and their commit; downloaded unless put there by hand."""
    if pinned and by_hand.is_file():
        return by_hand, None, pinned["revision"]
    repository = wanted.repository
    try:
        commit = pinned and pinned["revision"]
        commit = commit or commit_of(repository, wanted.name, wanted.revision)
        config = hub_file(repository, CONFIG, revision=commit) if wanted.described else None
        return hub_file(repository, wanted.name, revision=commit), config, commit
    except Exception as error:  # those of huggingface_hub have no common base
        elsewhere = (
            f"Without one, download https://huggingface.co/{repository}/resolve/"
            f"{pinned['revision']}/{wanted.name} elsewhere and put it at {by_hand} (SHA-256 "
            f"{pinned['source_sha256']})."
            if pinned
            else "The first download needs one, to pin the commit; or use a file (priors.files)."
        )
        raise UserError(
            f"{repository} on huggingface.co could not be downloaded ({first_line(error)}). Run "
            f"the same again with a network. {elsewhere}"
        ) from None


def _check_statistics(config: Path, statistics: Statistics, key: str) -> None:
    """Raise UserError if smp states other statistics for the weights than for the encoder."""
    stated = json.loads(config.read_text(encoding="utf-8"))
    mean, std = stated.get("mean"), stated.get("std")
    if mean and std and not torch.allclose(torch.tensor((mean, std)), torch.tensor(statistics)):
        raise UserError(
            f"{key}: these weights were trained with other statistics than the encoder has by "
            f"default. Add `mean: {mean}` and `std: {std}` to the prior."
        )


def _loaded(tensors: Tensors, declared: HubPrior, encoder: torch.nn.Module) -> Tensors:
    """The weights as the library loads them, by the names in ``encoder``."""
    if not declared.encoder.startswith("tu-"):
        encoder.load_state_dict(tensors)  # smp's encoders leave out their classifiers
        return encoder.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm, about its own defaults
        whole = timm.create_model(
            declared.encoder.removeprefix("tu-"),
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": tensors},
        )
    # timm flattens the names of a model that returns features: stages.0 becomes stages_0.
    by_plain = {_plain(name): tensor for name, tensor in whole.state_dict().items()}
    return {
        name: by_plain[_plain(name)] for name in encoder.state_dict() if _plain(name) in by_plain
    }


def _plain(name: str) -> str:
    while name.startswith("model."):
        name = name.removeprefix("model.")
    return name.replace("_", ".")
