"""Make a prior of a model that was trained before, here or elsewhere.

Such a model must not have learnt from what this dataset tests with: tiles of its training that are
in val or test here would give scores that say nothing about other tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.core.weights import read_weights
from roofseg.cutting.seen import PlacedTile, check_seen, grid_of
from roofseg.inference.predictor import ModelRecord, read_record
from roofseg.patches import read_seen_tiles
from roofseg.priors.record import Origin, check_finite, write_prior
from roofseg.recipe.priors import ModelPrior, as_keys
from roofseg.tiles.licence import OTHER, Licence, declared_licence
from roofseg.tiles.manifest import read_manifest


def make_model_prior(
    name: str,
    declared: ModelPrior,
    folder: Path,
    *,
    decisive: Mapping[str, Any],
    digest: str,
    dataset: str,
    listing: Path,
    patch_size: int,
) -> Path:
    """Make the prior ``name`` of a model; return the path of its weights.

    Args:
        name: the prior's name
        declared: its declaration
        folder: the folder of weights
        decisive: the part of the declaration that decides (`recipe.params.Params.declared_prior`)
        digest: the recipe digest that the model must have
        dataset: the name of the dataset in force
        listing: patches/tiles.csv of that dataset
        patch_size: side of its patches in pixels

    Raises:
        UserError: the model's folder is not complete or its training failed; it was trained with
            another recipe or has other statistics than declared; or it has seen tiles of val or
            test
    """
    key, model = f"priors.models.{name}", Path(declared.model)
    found, record = read_record(model), read_json(model / "recipe.json")
    if found.digest != digest:
        raise UserError(
            f"{model / 'recipe.json'}: the model's recipe digest is {found.digest}, but {key} "
            f"means {digest}. If this is the model that you mean, write `recipe: "
            f"'{found.digest}'` there; if it is an attempt of this project, train it again."
        )
    if failure := (record.get("result") or {}).get("failure"):
        raise UserError(f"{model / 'recipe.json'}: its training ended early: {failure}")
    statistics = found.recipe.statistics
    if as_keys(statistics) != {k: v for k, v in decisive.items() if k in ("mean", "std")}:
        stated = ", ".join(f"{name}: {values}" for name, values in as_keys(statistics).items())
        raise UserError(
            f"{key}: not the input statistics that the model was trained with. "
            f"{'Write there ' + stated if stated else 'Remove mean and std'}."
        )
    seen = read_seen_tiles(model / "tiles.csv")
    here = [
        PlacedTile(tile.tile, tile.split, tile.image_sha256, grid_of(tile, patch_size))
        for tile in read_manifest(listing).values()
    ]
    remedy = "Put these tiles into train (split.csv), or start from another prior."
    check_seen(seen, here, f"{key}: the model {model}", remedy)
    weights = model / "model.safetensors"
    tensors = read_weights(weights)
    if declared.part == "encoder":
        start = "encoder."
        tensors = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    if not tensors:
        raise UserError(f"{weights}: holds no tensor of the model's {declared.part}. Restore it.")
    for tensor_name, tensor in tensors.items():
        check_finite(tensor_name, tensor, str(weights))
    origin = Origin(
        f"model {found.attempt}, trained on {found.dataset}",
        found.digest,
        sha256_file(weights),
        found.recipe.encoder,
        statistics,
        _licence(declared, found, record, dataset),
        decisive,
    )
    earlier = {
        "attempt": found.attempt,
        "dataset": found.dataset,
        "digest": found.digest,
        "architecture": found.recipe.architecture,
        "part": declared.part,
        "prior": record.get("prior"),
    }
    return write_prior(folder, name, tensors, origin, model=earlier, tiles=seen)


def _licence(
    declared: ModelPrior, model: ModelRecord, record: Mapping[str, Any], dataset: str
) -> Licence:
    """The declared licence; else that of the model's prior, if it was trained on these data."""
    if declared.licence:
        return declared_licence(declared.licence)
    prior = (record.get("prior") or {}).get("licence", {"spdx": OTHER, "terms": "Not stated."})
    same = model.dataset == dataset
    data = "" if same else f"dataset {model.dataset}, whose terms apply; "
    terms = f"A model of {model.attempt} ({data}its prior: {prior['terms']})"
    return Licence(prior["spdx"] if same else OTHER, terms)
