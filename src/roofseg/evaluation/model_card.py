"""A model card per attempt: what the model is, what it learned from, how good it is, its limits.

Markdown with a header of metadata as the Hugging Face Hub reads it, after M. Mitchell et al., Model
Cards for Model Reporting, FAT* 2019. A card says the same at every writing: it holds no times.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from roofseg.core.files import read_json, sha256_file
from roofseg.evaluation.boundary import DISTANCE, DISTANCE_M
from roofseg.evaluation.calibration import BINS
from roofseg.metrics import SPLITS, THRESHOLD
from roofseg.recipe.architectures import SAM_ENCODER
from roofseg.recipe.params import Recipe
from roofseg.results.disclaimers import SEALED, caveats
from roofseg.results.intervals import CONFIDENCE, Interval, of_tiles
from roofseg.results.test_ledger import count_looks
from roofseg.tiles.licence import CODE, OTHER, PRIORS, Licence, licence_of_weights

SCORES = {
    "iou": "IoU, mean over tiles",
    "f1": "F1, mean over tiles",
    "iou_pooled": "IoU, pooled over pixels",
    "f1_pooled": "F1, pooled over pixels",
    "precision": "precision, pooled",
    "recall": "recall, pooled",
}
SHAPES = {
    "boundary_iou": f"boundary IoU at {DISTANCE} px, mean over tiles",
    "boundary_iou_m": f"boundary IoU at {DISTANCE_M:g} m, mean over tiles",
    "building_f1": "F1 of buildings, mean over tiles",
    "building_f1_pooled": "F1 of buildings, pooled",
}
HUB_SCORES = {"iou": "mean_iou", "f1": "f1"}  # the headline, and the Hub's names of it
# What scores.json holds, and what a card calls it.
SCORED = {
    "val": "val",
    "test": "test",
    "val_full_tiles": "val, whole tiles",
    "test_full_tiles": "test, whole tiles",
}


def card(model: Path, results: Path, *, split: Mapping[str, str], licence: Licence) -> str:
    """The text of an attempt's model card.

    Args:
        model: the folder with model.safetensors and recipe.json.
        results: the folder with the attempt's scores.json, tiles.csv, sizes.csv and test_looks.csv
            (`roofseg.evaluation.evaluate`).
        split: the split of each tile of the dataset.
        licence: that of the dataset.
    """
    record = read_json(model / "recipe.json")
    recipe = Recipe.model_validate(record["recipe"])
    # Tiles may be called 007 or NA; only an empty cell is a missing value.
    rows = pd.read_csv(
        results / "tiles.csv", dtype={"tile": str}, keep_default_na=False, na_values=[""]
    )
    tables = {name: rows[rows.split == name] for name in SCORED if (rows.split == name).any()}
    scores = {name: of_tiles(table) for name, table in tables.items()}
    tiles = {name: list(split.values()).count(name) for name in ("train", *SPLITS)}
    found = read_json(results / "scores.json")
    ece = {name: found[name]["ece"] for name in SPLITS if name in found}
    sizes = pd.read_csv(results / "sizes.csv")
    looks = count_looks(results / "test_looks.csv", record["dataset"])
    parts = [
        _header(record, scores, licence_of_weights(PRIORS[recipe.prior], licence)),
        [f"# {recipe.label(record['attempt'])}", ""],
        [
            "A probability of building for each pixel of aerial RGB imagery. One attempt of a "
            "study that asks which architecture learns that best from a few dozen labelled tiles.",
            "",
        ],
        [f"> **{name}**: {text}\n" for name, text in caveats(record["dataset"], recipe).items()],
        _model(record, recipe, sha256_file(model / "model.safetensors")),
        _data(record, tiles),
        _scores(scores, tiles, looks),
        _shapes(scores, ece, tiles),
        _by_size(sizes),
        _by_tile(tables),
        _limits(record, tiles, whole="val_full_tiles" in tables),
        _licences(recipe, record["dataset"], licence),
        _use(model),
        _recipe(record),
    ]
    return "\n".join(line for part in parts for line in part)


def _header(
    record: Mapping[str, Any], scores: Mapping[str, Mapping[str, Interval]], licence: str
) -> list[str]:
    """The metadata, between two lines of hyphens."""
    terms = {"license": licence.lower()}
    if licence == OTHER:
        terms["license_name"] = "terms-of-its-data-and-prior"
    results = [
        {
            "task": {"type": "image-segmentation", "name": "Building segmentation"},
            "dataset": {"type": record["dataset"], "name": record["dataset"], "split": hub_name},
            "metrics": [
                {"type": kind, "name": SCORES[key], "value": round(scores[split][key].value, 4)}
                for key, kind in HUB_SCORES.items()
            ],
        }
        for split, hub_name in SPLITS.items()
        if split in scores
    ]
    metadata = {
        **terms,
        "library_name": "roofseg",
        "pipeline_tag": "image-segmentation",
        "tags": ["building-footprints", "remote-sensing", record["recipe"]["architecture"]],
        "model-index": [{"name": record["attempt"], "results": results}],
    }
    text = io.StringIO()
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(metadata, text)
    return ["---", text.getvalue().rstrip(), "---", ""]


def _model(record: Mapping[str, Any], recipe: Recipe, sha256: str) -> list[str]:
    result = record["result"]
    counts = {
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
            ["", ""],
            [
                ["architecture", f"`{recipe.architecture}`"],
                ["encoder", f"{encoder}{frozen}"],
                ["prior", f"`{recipe.prior}`"],
                [
                    "parameters",
                    f"{counts['encoder']} in the encoder, {counts['decoder']} in the decoder; "
                    f"{counts['trainable']} trained",
                ],
                ["input", f"8-bit RGB in windows of {size} x {size} px, {_gsd(record)}"],
                ["output", f"probability in [0, 1]; building from {THRESHOLD}"],
                ["best epoch", f"{result['best_epoch']} of {result['epochs_run']}, by val IoU"],
                ["SHA-256 of the weights", f"`{sha256}`"],
                ["recipe digest", f"`{record['digest']}`"],
            ],
        ),
    ]


def _gsd(record: Mapping[str, Any]) -> str:
    found = " or ".join(f"{gsd:g}" for gsd in record["gsd"])
    return f"{found} m per pixel" if found else "of unknown ground sampling distance"


def _data(record: Mapping[str, Any], tiles: Mapping[str, int]) -> list[str]:
    size = record["patch_size"]
    return [
        "## Data",
        "",
        f"Dataset `{record['dataset']}`: {tiles['train']} tiles to train on, {tiles['val']} to "
        f"choose epoch and recipe by (val), {tiles['test']} for the end (test). Of each tile one "
        f"patch of {size} x {size} px, {_gsd(record)}: its centre, unless that holds too little "
        "building.",
        "",
    ]


def _scores(
    scores: Mapping[str, Mapping[str, Interval]], tiles: Mapping[str, int], looks: int
) -> list[str]:
    shown = SCORED if "val_full_tiles" in scores else SPLITS
    header = [f"{SCORED[each]} ({tiles[each.partition('_')[0]]} tiles)" for each in shown]
    rows = [[name, *(_score(scores, each, key) for each in shown)] for key, name in SCORES.items()]
    lines = [
        "## Scores",
        "",
        *_table(["", *header], rows),
        f"At threshold {THRESHOLD}. In brackets: {100 * CONFIDENCE:g} % bootstrap interval over "
        "the tiles. It says how far a score would go with other tiles of this kind, not with "
        "another seed; and for few tiles it is too narrow. The recipe and the best epoch were "
        "chosen by val, so its scores flatter.",
        "",
    ]
    if "test" not in scores:
        lines += ["Test is sealed: the recipe is not final, so nothing was scored on it.", ""]
    elif looks > 1:
        lines += [
            f"{looks} recipes of this attempt were scored on these test tiles, so its test scores "
            "are no longer those of tiles that nobody had looked at.",
            "",
        ]
    return lines


def _score(scores: Mapping[str, Mapping[str, Interval]], split: str, key: str) -> str:
    """A cell: a score with its interval; empty where the GSD of a tile is unknown."""
    if split not in scores:
        return SEALED
    if key not in scores[split]:
        return ""
    found = scores[split][key]
    bounds = "" if math.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{bounds}"


def _shapes(
    scores: Mapping[str, Mapping[str, Interval]], ece: Mapping[str, float], tiles: Mapping[str, int]
) -> list[str]:
    """What scores of pixels do not say: of edges, of buildings, of the probabilities."""
    rows = [
        [name, *(_score(scores, split, key) for split in SPLITS)]
        for key, name in SHAPES.items()
        if any(key in scores[split] for split in SPLITS if split in scores)
    ]
    errors = [f"{ece[split]:.3f}" if split in ece else SEALED for split in SPLITS]
    return [
        "### Edges, buildings, probabilities",
        "",
        *_table(
            ["", *(f"{split} ({tiles[split]} tiles)" for split in SPLITS)],
            [*rows, ["calibration error (ECE)", *errors]],
        ),
        "Boundary IoU (Cheng et al. 2021) compares only those pixels of both masks that are within "
        "that distance of their edges (in whole pixels). A building is a group of pixels joined by "
        "their sides; it is found where a predicted one has an IoU above 0.5 with it (Kirillov et "
        "al. 2019). So roofs that touch count as one, and every predicted speck is a false "
        "building. ECE (Guo "
        f"et al. 2017, {BINS} bins) is the mean distance between a pixel's probability and the "
        "share of such pixels that are building; plain background, which is most, keeps it small.",
        "",
    ]


def _by_size(sizes: pd.DataFrame) -> list[str]:
    """Which buildings are found, and which are claimed in vain, by their area."""
    cells = {
        (row.split, row.unit, row.size): [
            f"{row.found} of {row.buildings}",
            f"{row.pixel_recall:.3f}" if row.buildings else "",
            f"{row.false_claims}",
        ]
        for row in sizes.itertuples()
    }
    splits = [split for split in SPLITS if (sizes.split == split).any()]
    rows = [
        [
            f"{size} {unit.replace('m2', 'm²')}",
            *(cell for split in splits for cell in cells.get((split, unit, size), [""] * 3)),
        ]
        for unit, size in dict.fromkeys((unit, size) for _, unit, size in cells)
    ]
    columns = ("found", "share of their pixels", "false claims")
    return [
        "### By size of building",
        "",
        *_table(["", *(f"{split}: {column}" for split in splits for column in columns)], rows),
        "Buildings are sorted by their own area, and false claims, predicted buildings that match "
        "none, by theirs. The border of a patch cuts buildings, which makes small ones of them.",
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


def _limits(record: Mapping[str, Any], tiles: Mapping[str, int], *, whole: bool) -> list[str]:
    which = "The scores that are not of whole tiles are" if whole else "The scores are"
    return [
        "## Limits",
        "",
        f"- It has seen {tiles['train']} patches of one dataset. Other roofs, regions, seasons and "
        "sensors may score far lower; measure on some tiles of your own.",
        f"- It knows no other scale than that of its tiles, {_gsd(record)}. Resample what differs.",
        f"- {which} of patches that were chosen to hold buildings. They say little of how often it "
        "finds one where there is none.",
        "- It tells building from background, pixel by pixel: walls that touch become one "
        "footprint, and what trees hide is lost.",
        "- One training with one seed.",
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
    """The recipe as YAML, and what it was trained on."""
    result = record["result"]
    return [
        "## Recipe",
        "",
        "```yaml",
        *(f"{key}: {json.dumps(value)}" for key, value in record["recipe"].items()),
        "```",
        "",
        f"Trained on {result['device']} ({result['precision']}) with torch {result['torch']}. "
        f"SHA-256 of all that training read: `{record['training_inputs']}`.",
        "",
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return [*(f"| {' | '.join(_escaped(cells))} |" for cells in lines), ""]


def _escaped(cells: Sequence[str]) -> list[str]:
    """A tile may have a bar in its name."""
    return [cell.replace("|", "\\|") for cell in cells]
