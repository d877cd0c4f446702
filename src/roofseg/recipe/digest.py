"""The recipe digest, which identifies a recipe, and the hash of all inputs of a training run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_files
from roofseg.recipe.params import Params, PatchSettings, Recipe
from roofseg.recipe.split import read_nudges, read_split

DIGEST_LENGTH = 12

# Keys that were added after the first digests were published, each with its neutral value. The
# digest leaves out a key that has its neutral value, so that older recipes keep their digests.
NEUTRAL = {"augmentation_pool": None, "algorithms": "deterministic"}


def recipe_of(
    recipe: Recipe, patches: PatchSettings, split: Mapping[str, str], nudges: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that the digest covers, as JSON values; keys with their neutral value left out."""
    return {
        **{
            key: value
            for key, value in recipe.model_dump(mode="json").items()
            if key not in NEUTRAL or value != NEUTRAL[key]
        },
        **{key: getattr(patches, key) for key in PatchSettings.model_fields},
        "split": dict(sorted(split.items())),
        "nudges": {tile: list(place) for tile, place in sorted(nudges.items())},
    }


def digest(
    recipe: Recipe, patches: PatchSettings, split: Mapping[str, str], nudges: Mapping[str, Any]
) -> str:
    """The recipe digest: the first 12 hex digits of a SHA-256 over `recipe_of` as JSON.

    It covers the parameters as written (``precision: auto`` stays ``auto``) and the contents of
    split and nudges, but neither the machine nor any path. ``1e-3`` and ``0.001`` give one digest,
    and the order of keys does not matter.
    """
    canonical = json.dumps(
        recipe_of(recipe, patches, split, nudges), sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_LENGTH]


def inputs_hash(recipe_digest: str, paths: Iterable[Path]) -> str:
    """SHA-256 (64 hex digits) of a training run's inputs: its recipe, code, prior and patches."""
    return hashlib.sha256(f"{recipe_digest} {sha256_files(paths)}".encode()).hexdigest()


def attempt_digest(params: Params, attempt: str, *, dataset: Path) -> str:
    """The digest of an attempt's recipe; ``dataset`` is the folder of split.csv and nudges.csv."""
    return digest(params.recipe(attempt), params, read_split(dataset), read_nudges(dataset))


def trained_digest(params: Params, attempt: str, *, dataset: Path, model: Path) -> str:
    """Check that a model was trained with the recipe in force, and return the recipe's digest.

    ``dataset`` is the folder of split.csv and nudges.csv, ``model`` that of recipe.json. Raises
    UserError if the model was trained with another recipe, or if its training ended early.
    """
    wanted = attempt_digest(params, attempt, dataset=dataset)
    path = model / "recipe.json"
    record = read_json(path)
    if record["digest"] != wanted:
        raise UserError(
            f"{path}: the model was trained with the recipe {record['digest']}, but params.yaml, "
            f"split and nudges now give {wanted}. Run `dvc repro train@{attempt}` first."
        )
    if record["result"]["failure"]:
        raise UserError(
            f"{path}: training ended early: {record['result']['failure']} Then train again."
        )
    return wanted
