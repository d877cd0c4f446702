"""Write the model card of an attempt: the model, its data, its scores and its limits.

The card follows M. Mitchell et al., Model Cards for Model Reporting, FAT* 2019. It is Markdown that
begins with metadata for the Hugging Face Hub. It holds no times, so the same model and scores give
the same card. Its text is in model_card.md.j2; this module makes the tables and the metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from roofseg.core.files import read_json, sha256_file
from roofseg.evaluation.boundary import DISTANCE, DISTANCE_M
from roofseg.evaluation.calibration import BINS
from roofseg.evaluation.evaluate import Evaluation
from roofseg.metrics import COUNTS, SCORED_SPLITS, THRESHOLD
from roofseg.recipe.architectures import MOBILE_SAM, is_sam
from roofseg.recipe.params import Recipe
from roofseg.results.disclaimers import SEALED, standard_caveats
from roofseg.results.intervals import CONFIDENCE, UNKNOWN, Interval, intervals_of_tiles
from roofseg.results.tables import bounds, counted, markdown_table, number
from roofseg.tiles.licence import CODE, OTHER, Licence, licence_of_weights

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
    "ece": "expected calibration error (ECE)",
}
HUB_METRICS = {"iou": "mean_iou", "f1": "f1"}  # the Hub's names of the headline scores
SCORED = {
    "val": "val",
    "test": "test",
    "val_full_tiles": "val, whole tiles",
    "test_full_tiles": "test, whole tiles",
}
"""Headings of the splits and sets of whole tiles that can have scores."""

TEMPLATE = Path(__file__).with_name("model_card.md.j2")

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
    recipe, result = Recipe.model_validate(record["recipe"]), record["result"]
    tiles = evaluation.tiles
    tables = {name: tiles[tiles.split == name] for name in SCORED if (tiles.split == name).any()}
    scores = {name: intervals_of_tiles(table) for name, table in tables.items()}
    for name in scores.keys() & SCORED_SPLITS.keys():
        scores[name]["ece"] = replace(UNKNOWN, value=evaluation.scores[name]["ece"])
    whole = "val_full_tiles" in tables
    counts = {name: list(split.values()).count(name) for name in ("train", *SCORED_SPLITS)}
    prior = Licence(**record["prior"]["licence"])
    note = _of_sam(recipe.encoder)
    if recipe.lora:
        note += f", adapted by {recipe.lora} ({', '.join(recipe.lora.targets)})"
    elif recipe.thaw_epoch is None:
        note += ", frozen"
    without_sam = recipe.without_sam or (
        is_sam(recipe.encoder) and _first(record["prior"])["prior"] == "scratch"
    )
    templates = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=_metadata(record, scores, licence_of_weights(prior, licence)),
        title=f"{record['attempt']}{' (no SAM weights)' if without_sam else ''}",
        caveats=standard_caveats(record["dataset"], "The encoder" if without_sam else ""),
        model=model.as_posix(),
        weights=sha256_file(model / "model.safetensors"),
        record=record,
        recipe=recipe,
        prior_chain=_chain(record["prior"]),
        encoder_note=note,
        parameters={
            part: f"{result[f'{part}_parameters'] / 1e6:.2f} M"
            for part in ("encoder", "decoder", "trainable", *(["adapter"] if recipe.lora else []))
        },
        gsd=_gsd(record["gsd"]),
        counts=counts,
        labelled=_labelled(tables, record["patch_size"]),
        threshold=THRESHOLD,
        confidence=f"{100 * CONFIDENCE:g}",
        bins=BINS,
        pixel_scores=_scores(scores, PIXEL_SCORES, SCORED if whole else SCORED_SPLITS, counts),
        shape_scores=_scores(scores, SHAPE_SCORES, SCORED_SPLITS, counts),
        by_size=_by_size(evaluation.sizes),
        by_tile=_by_tile(tables),
        sealed="test" not in scores,
        looks=looks,
        whole_tiles=whole,
        code_licence=CODE,
        prior_licence=prior,
        data_licence=licence,
        data_spdx="" if licence.spdx == OTHER else f" ({licence.spdx})",
    )


def _of_sam(encoder: str) -> str:
    """Which program's image encoder it is; empty for other encoders."""
    if not is_sam(encoder):
        return ""
    name = "MobileSAM" if encoder == MOBILE_SAM else "Segment Anything"
    return f", the image encoder of {name}{' 2' if encoder.startswith('tu-') else ''}"


def _first(prior: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of the first prior in a chain of models."""
    earlier = (prior.get("model") or {}).get("prior")
    return _first(earlier) if earlier else prior


def _chain(prior: Mapping[str, Any]) -> list[str]:
    """A line for the prior and, where that is a model, for every prior before it.

    ``prior`` is a record that `roofseg.priors.record.write_prior` wrote.
    """
    revision = f", revision `{prior['revision']}`" if prior["revision"] else ""
    file = f", SHA-256 `{prior['source_sha256']}`" if prior["source_sha256"] else ""
    line = f"`{prior['prior']}`: {prior['source']}{revision}{file}"
    model = prior.get("model")
    if not model:
        return [line]
    part = "encoder and decoder" if model["part"] == "all" else "encoder"
    line = (
        f"`{prior['prior']}`: the {part} of the model {model['attempt']}, trained on the dataset "
        f"{model['dataset']} with the recipe `{model['digest']}`{file}"
    )
    return [line, *(_chain(model["prior"]) if model["prior"] else [])]


def _metadata(record: Mapping[str, Any], scores: Scores, licence: str) -> str:
    """The metadata for the Hub, as YAML."""
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
    return metadata.to_yaml()


def _gsd(known: Sequence[float]) -> str:
    if not known:
        return "of unknown ground sampling distance"
    between = " or " if len(known) == 2 else " to "
    return f"{between.join(f'{gsd:g}' for gsd in sorted({min(known), max(known)}))} m per pixel"


def _scores(
    scores: Scores, headings: Mapping[str, str], splits: Iterable[str], counts: Mapping[str, int]
) -> str:
    """A table of scores with their intervals: a row for each score, a column for each split.

    Scores that no split has are left out, such as those in metres without a GSD.
    """
    columns = {
        split: f"{SCORED[split]} ({counted(counts[split.partition('_')[0]], 'tile')})"
        for split in splits
    }
    return _table(
        ["", *columns.values()],
        [
            [heading, *(_score(scores, split, name) for split in columns)]
            for name, heading in headings.items()
            if any(name in known for known in scores.values())
        ],
    )


def _score(scores: Scores, split: str, name: str) -> str:
    """A score with its interval; empty where the score needs a GSD that some tile lacks."""
    if split not in scores:
        return SEALED
    if name not in scores[split]:
        return ""
    score = scores[split][name]
    return f"{number(score.value)} {bounds(score.low, score.high)}".rstrip()


def _by_size(sizes: pd.DataFrame) -> str:
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
    return _table(["", *(f"{split}: {column}" for split in splits for column in columns)], rows)


def _labelled(tables: Mapping[str, pd.DataFrame], patch_size: int) -> str:
    """The share of labelled pixels of each split, in words; empty if all pixels are labelled."""
    shares = {
        split: float(tables[split][COUNTS].to_numpy().sum()) / (len(tables[split]) * patch_size**2)
        for split in SCORED_SPLITS
        if split in tables
    }
    if min(shares.values()) >= 1:
        return ""
    return ", ".join(f"{share:.1%} of {split}" for split, share in shares.items())


def _by_tile(tables: Mapping[str, pd.DataFrame]) -> str:
    rows = [
        [
            SCORED[split],
            str(row.tile),
            f"{(row.tp + row.fn) / max(1, row.tp + row.fp + row.fn + row.tn):.1%}",
            f"{row.iou:.3f}",
            f"{row.f1:.3f}",
        ]
        for split, table in tables.items()
        for row in table.itertuples()
    ]
    return _table(["split", "tile", "building", "IoU", "F1"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(header, rows, left=header))
