"""Make a prior of a model that was trained before, here or elsewhere.

Such a model must not have learnt from what this dataset tests with: tiles of its training that are
in val or test here would give scores that say nothing about other tiles.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.core.weights import read_weights
from roofseg.cutting.leakage import shared_ground
from roofseg.inference.predictor import ModelRecord, read_record
from roofseg.patches import RETRAIN, read_seen_tiles
from roofseg.priors.record import Origin, check_finite, write_prior
from roofseg.recipe.priors import ModelPrior, as_keys
from roofseg.tiles.licence import OTHER, Licence, declared_licence
from roofseg.tiles.manifest import TileRecord, read_manifest
from roofseg.tiles.rasters import Grid

NAMED = 5  # the overlapping tiles that an error names
# Splits here that must not share a tile with a split of the earlier model: it learnt from train,
# and val chose its epoch and recipe. To choose by the same val again is no leak.
SEALED_FROM = {"train": ("val", "test"), "val": ("test",)}


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
    check_seen(seen, read_manifest(listing), patch_size, f"{key}: the model {model}")
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


def check_seen(
    seen: Sequence[Mapping[str, str]],
    here: Mapping[str, TileRecord],
    patch_size: int,
    subject: str,
) -> None:
    """Raise UserError if a model has seen tiles that val or test of this dataset hold.

    Two tiles are the same if their images have the same bytes, or if their georeferenced patches
    share ground.

    Args:
        seen: the rows of the model's tiles.csv (`roofseg.patches.seen_tiles`)
        here: the tiles of the dataset in force
        patch_size: side of its patches in pixels
        subject: begins the error
    """
    tiles = list(here.values())
    grids = [_seen_grid(row, subject) for row in seen]
    grids += [_grid(patch_size, tile.crs, tile.transform) for tile in tiles]
    sides = ["seen"] * len(seen) + ["here"] * len(tiles)
    reasons = {
        (one, two - len(seen)): f"share {width:.0f} x {height:.0f} px of ground"
        for (one, two), (width, height) in shared_ground(grids, sides).items()
    }
    by_hash = defaultdict(list)  # a dataset may hold an image twice
    for two, tile in enumerate(tiles):
        by_hash[tile.image_sha256].append(two)
    for one, row in enumerate(seen):
        for two in by_hash[row["image_sha256"]]:
            reasons[one, two] = "are the same image"
    lines = [
        f"{seen[one]['tile']} ({seen[one]['split']} of {seen[one]['dataset']}) and "
        f"{tiles[two].tile} ({tiles[two].split} here) {reason}"
        for (one, two), reason in sorted(reasons.items())
        if tiles[two].split in SEALED_FROM[seen[one]["split"]]
    ]
    if lines:
        more = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
        raise UserError(
            f"{subject} has seen tiles of val or test, so scores would be too high: "
            f"{'; '.join(lines[:NAMED])}{more}. Put these tiles into train (split.csv), or start "
            "from another prior."
        )


def _seen_grid(row: Mapping[str, str], subject: str) -> Grid:
    """The grid of a patch in a model's tiles.csv; UserError if the row is not as training wrote it.

    ``subject`` begins the error.
    """
    try:
        grid = _grid(row["patch_size"], row["crs"], row["transform"])
        if grid.width > 0 and row["split"] in SEALED_FROM:
            return grid
    except (ValueError, CRSError):
        pass
    found = ", ".join(f"{key} {row[key]!r}" for key in ("split", "patch_size", "crs", "transform"))
    raise UserError(
        f"{subject} has a tiles.csv that is damaged: tile {row['tile']} has {found}. Restore the "
        f"file. {RETRAIN}"
    )


def _grid(patch_size: str | int, crs: str, transform: str) -> Grid:
    """The grid of a patch, from the text in a table; ValueError or CRSError if it is none."""
    size, numbers = int(patch_size), [float(number) for number in transform.split()]
    if len(numbers) not in (0, 6) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{transform!r} is not six numbers")
    place = Affine(*numbers) if numbers else None
    return Grid(size, size, CRS.from_string(crs) if crs else None, place)
