"""Write the model card of an attempt: the model, its data, its scores and its limits.

The card follows M. Mitchell et al., Model Cards for Model Reporting, FAT* 2019. It is Markdown that
begins with metadata for the Hugging Face Hub. It holds no times, so the same model and scores give
the same card.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from roofseg.core.files import read_json, sha256_file
from roofseg.evaluation.boundary import DISTANCE, DISTANCE_M
from roofseg.evaluation.calibration import BINS
from roofseg.evaluation.evaluate import Evaluation
from roofseg.metrics import SCORED_SPLITS, THRESHOLD
from roofseg.recipe.architectures import SAM_ENCODER
from roofseg.recipe.params import Recipe
from roofseg.results.disclaimers import SEALED, caveats
from roofseg.results.intervals import CONFIDENCE, Interval, intervals_of_tiles
from roofseg.results.tables import markdown_table
from roofseg.tiles.licence import CODE, OTHER, PRIORS, Licence, licence_of_weights

PIXEL_SCORES = {
    "iou": "IoU, mean over tiles",
    "f1": "F1, mean over tiles",
    "iou_pooled": "IoU, pooled over pixels",
    "f1_pooled": "F1, pooled over pixels",
    "precision": "precision, pooled over pixels",
    "recall": "recall, pooled over pixels",
}
SHAPE_SCORES = {
    "boundary_iou": f"boundary IoU at {DISTANCE} px, mean over tiles",
    "boundary_iou_m": f"boundary IoU at {DISTANCE_M:g} m, mean over tiles",
    "building_f1": "building F1, mean over tiles",
    "building_f1_pooled": "building F1, pooled over buildings",
}
HUB_METRICS = {"iou": "mean_iou", "f1": "f1"}  # the Hub's names of the headline scores
SCORED = {
    "val": "val",
    "test": "test",
    "val_full_tiles": "val, whole tiles",
    "test_full_tiles": "test, whole tiles",
}
"""Headings of the splits and sets of whole tiles that can have scores."""

Scores = Mapping[str, Mapping[str, Interval]]


def card(
    model: Path,
    evaluation: Evaluation,
    *,
    looks: int,
    split: Mapping[str, str],
    licence: Licence,
) -> str:
    """Write the text of an attempt's model card.

    Args:
        model: the folder with model.safetensors and recipe.json.
        evaluation: the scores of the model.
        looks: the number of recipes of this attempt that were scored on the test tiles.
        split: the split of each tile of the dataset, by name of the tile.
        licence: the licence of the dataset.
    """
    record = read_json(model / "recipe.json")
    recipe = Recipe.model_validate(record["recipe"])
    tiles = evaluation.tiles
    tables = {name: tiles[tiles.split == name] for name in SCORED if (tiles.split == name).any()}
    scores = {name: intervals_of_tiles(table) for name, table in tables.items()}
    counts = {name: list(split.values()).count(name) for name in ("train", *SCORED_SPLITS)}
    parts = [
        _metadata(record, scores, licence_of_weights(PRIORS[recipe.prior], licence)),
        [f"# {recipe.label(record['attempt'])}", ""],
        [
            "This model maps aerial RGB imagery to the probability of building at each pixel. It "
            "is one attempt of a study that asks which architecture learns this best from a few "
            "dozen labelled tiles.",
            "",
        ],
        [f"> **{name}**: {text}\n" for name, text in caveats(record["dataset"], recipe).items()],
        _model(record, recipe, sha256_file(model / "model.safetensors")),
        _data(record, counts),
        _scores(scores, counts, looks),
        _shapes(scores, evaluation.scores, counts),
        _by_size(evaluation.sizes),
        _by_tile(tables),
        _limits(record, counts, whole="val_full_tiles" in tables),
        _licences(recipe, record["dataset"], licence),
        _use(model),
        _recipe(record),
    ]
    return "\n".join(line for part in parts for line in part)


def _metadata(record: Mapping[str, Any], scores: Scores, licence: str) -> list[str]:
    """The metadata for the Hub: YAML between two lines of hyphens."""
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Building segmentation",
            dataset_type=record["dataset"],
            dataset_name=record["dataset"],
            dataset_split=hub_split,
            metric_type=hub_metric,
            metric_name=PIXEL_SCORES[name],
            metric_value=round(scores[split][name].value, 4),
        )
        for split, hub_split in SCORED_SPLITS.items()
        if split in scores
        for name, hub_metric in HUB_METRICS.items()
    ]
    metadata = ModelCardData(
        license=licence.lower(),
        license_name="terms-of-its-data-and-prior" if licence == OTHER else None,
        library_name="roofseg",
        pipeline_tag="image-segmentation",
        tags=["building-footprints", "remote-sensing", record["recipe"]["architecture"]],
        model_name=record["attempt"],
        eval_results=results,
    )
    return ["---", metadata.to_yaml(), "---", ""]


def _model(record: Mapping[str, Any], recipe: Recipe, sha256: str) -> list[str]:
    result = record["result"]
    parameters = {
        part: f"{result[f'{part}_parameters'] / 1e6:.2f} M"
        for part in ("encoder", "decoder", "trainable")
    }
    encoder = f"`{recipe.encoder}`"
    if recipe.encoder == SAM_ENCODER:
        encoder += ", the image encoder of Segment Anything"
    frozen = ", frozen" if recipe.thaw_epoch is None else ""
    size = record["patch_size"]
    return [
        "## Model",
        "",
        *_table(
            ["", " "],
            [
                ["architecture", f"`{recipe.architecture}`"],
                ["encoder", f"{encoder}{frozen}"],
                ["prior", f"`{recipe.prior}`"],
                [
                    "parameters",
                    f"{parameters['encoder']} in the encoder, {parameters['decoder']} in the "
                    f"decoder; {parameters['trainable']} trained",
                ],
                ["input", f"8-bit RGB in windows of {size} x {size} px, {_gsd(record)}"],
                ["output", f"probability in [0, 1]; {THRESHOLD} or more is building"],
                ["best epoch", f"{result['best_epoch']} of {result['epochs_run']}, by val IoU"],
                ["SHA-256 of the weights", f"`{sha256}`"],
                ["recipe digest", f"`{record['digest']}`"],
            ],
        ),
    ]


def _gsd(record: Mapping[str, Any]) -> str:
    known = " or ".join(f"{gsd:g}" for gsd in record["gsd"])
    return f"{known} m per pixel" if known else "of unknown ground sampling distance"


def _data(record: Mapping[str, Any], counts: Mapping[str, int]) -> list[str]:
    size = record["patch_size"]
    return [
        "## Data",
        "",
        f"Dataset `{record['dataset']}`: {counts['train']} tiles for training, {counts['val']} for "
        f"choosing the epoch and the recipe (val), {counts['test']} for the final scores (test). "
        f"Each tile gives one patch of {size} x {size} px, {_gsd(record)}: its centre, or another "
        "window if the centre holds too little building.",
        "",
    ]


def _scores(scores: Scores, counts: Mapping[str, int], looks: int) -> list[str]:
    splits = list(SCORED if "val_full_tiles" in scores else SCORED_SPLITS)
    header = [f"{SCORED[split]} ({counts[split.partition('_')[0]]} tiles)" for split in splits]
    lines = [
        "## Scores",
        "",
        *_table(
            ["", *header],
            [
                [heading, *(_score(scores, split, name) for split in splits)]
                for name, heading in PIXEL_SCORES.items()
            ],
        ),
        f"At threshold {THRESHOLD}. Brackets hold the {100 * CONFIDENCE:g} % bootstrap interval "
        "over tiles. It shows how far a score would move with other tiles of this kind, not with "
        "another seed; with few tiles it is too narrow. Val also chose the recipe and the best "
        "epoch, so its scores are optimistic.",
        "",
    ]
    if "test" not in scores:
        lines += ["Test is sealed: the recipe is not final, so nothing was scored on it.", ""]
    elif looks > 1:
        lines += [
            f"{looks} recipes of this attempt were scored on these test tiles, so its test scores "
            "may be optimistic.",
            "",
        ]
    return lines


def _score(scores: Scores, split: str, name: str) -> str:
    """A score with its interval; empty where the score needs a GSD that some tile lacks."""
    if split not in scores:
        return SEALED
    if name not in scores[split]:
        return ""
    score = scores[split][name]
    bounds = "" if math.isnan(score.low) else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:.3f}{bounds}"


def _shapes(
    scores: Scores, values: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]
) -> list[str]:
    rows = [
        [heading, *(_score(scores, split, name) for split in SCORED_SPLITS)]
        for name, heading in SHAPE_SCORES.items()
        if any(name in scores.get(split, {}) for split in SCORED_SPLITS)
    ]
    errors = [
        f"{values[split]['ece']:.3f}" if split in values else SEALED for split in SCORED_SPLITS
    ]
    return [
        "### Edges, buildings, probabilities",
        "",
        *_table(
            ["", *(f"{split} ({counts[split]} tiles)" for split in SCORED_SPLITS)],
            [*rows, ["expected calibration error (ECE)", *errors]],
        ),
        "Boundary IoU (Cheng et al. 2021) compares only the pixels of both masks within that "
        "distance of their edges (in whole pixels). A building is a group of pixels joined by "
        "their sides; it is found if a predicted building has an IoU above 0.5 with it (Kirillov "
        "et al. 2019). So roofs that touch count as one, and every predicted speck is a false "
        f"building. ECE (Guo et al. 2017, {BINS} bins) is the mean difference between predicted "
        "probability and the share of pixels with that probability that are building; the "
        "background, which is most of an image, keeps it small.",
        "",
    ]


def _by_size(sizes: pd.DataFrame) -> list[str]:
    """The table of buildings found and false buildings, by area."""
    cells = {
        (row.split, row.unit, row.size): [
            f"{row.found} of {row.buildings}",
            f"{row.pixel_recall:.3f}" if row.buildings else "",
            f"{row.false_claims}",
        ]
        for row in sizes.itertuples()
    }
    splits = [split for split in SCORED_SPLITS if (sizes.split == split).any()]
    rows = [
        [
            f"{size} {unit.replace('m2', 'm²')}",
            *(cell for split in splits for cell in cells.get((split, unit, size), [""] * 3)),
        ]
        for unit, size in dict.fromkeys((unit, size) for _, unit, size in cells)
    ]
    columns = ("found", "share of their pixels", "false buildings")
    return [
        "### By size of building",
        "",
        *_table(["", *(f"{split}: {column}" for split in splits for column in columns)], rows),
        "False buildings are predicted ones that match no building; they are classed by their own "
        "area. The border of a patch cuts buildings into smaller ones.",
        "",
    ]


def _by_tile(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    rows = [
        [
            SCORED[split],
            str(row.tile),
            f"{(row.tp + row.fn) / (row.tp + row.fp + row.fn + row.tn):.1%}",
            f"{row.iou:.3f}",
            f"{row.f1:.3f}",
        ]
        for split, table in tables.items()
        for row in table.itertuples()
    ]
    return ["### By tile", "", *_table(["split", "tile", "building", "IoU", "F1"], rows)]


def _limits(record: Mapping[str, Any], counts: Mapping[str, int], *, whole: bool) -> list[str]:
    subject = "Except for those on whole tiles, scores" if whole else "Scores"
    return [
        "## Limits",
        "",
        f"- It was trained on {counts['train']} patches of one dataset. Other roofs, regions, "
        "seasons and sensors may score far lower; measure on some tiles of your own.",
        f"- It knows only the scale of its tiles, {_gsd(record)}. Resample imagery of another "
        "scale.",
        f"- {subject} are of patches chosen to hold buildings. They say little about how often the "
        "model finds a building where there is none.",
        "- It labels pixels, not buildings: buildings that touch become one footprint, and roofs "
        "under trees are missed.",
        "- It comes from one training with one seed.",
        "",
    ]


def _licences(recipe: Recipe, dataset: str, licence: Licence) -> list[str]:
    spdx = "" if licence.spdx == OTHER else f" ({licence.spdx})"
    return [
        "## Licences",
        "",
        f"- **Code**: {CODE}.",
        f"- **Prior** `{recipe.prior}`: {PRIORS[recipe.prior].terms}",
        f"- **Data** `{dataset}`{spdx}: {' '.join(licence.terms.split())}",
        "",
    ]


def _use(model: Path) -> list[str]:
    return [
        "## Use",
        "",
        "In the project that this card belongs to:",
        "",
        "```console",
        f"$ dvc pull {model.as_posix()}",
        f"$ roofseg predict --model {model.as_posix()} tile.tif --out roofs",
        "```",
        "",
    ]


def _recipe(record: Mapping[str, Any]) -> list[str]:
    result = record["result"]
    return [
        "## Recipe",
        "",
        "```yaml",
        *(f"{key}: {json.dumps(value)}" for key, value in record["recipe"].items()),
        "```",
        "",
        f"Trained on {result['device']} ({result['precision']}) with torch {result['torch']}. "
        f"SHA-256 of everything that training read: `{record['training_inputs']}`.",
        "",
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [*markdown_table(header, rows, left=header), ""]
