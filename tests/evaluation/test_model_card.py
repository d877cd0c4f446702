from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from records import SHARED, prior_record, trained_record

from roofseg import metrics
from roofseg.commands import predict
from roofseg.core.files import sha256_file, write_json
from roofseg.evaluation.evaluate import Evaluation
from roofseg.evaluation.model_card import card
from roofseg.recipe.params import Recipe
from roofseg.results.disclaimers import SYNTHETIC
from roofseg.results.intervals import intervals_of_tiles
from roofseg.tiles.licence import Licence

FREE = Licence("Apache-2.0", "Made\nhere.")
OPEN = {"val": ["v1", "007", "NA"], "test": ["t1", "a|b"]}
SEALED = {"val": OPEN["val"]}
SPLIT = {"x": "train", "y": "train"} | {
    tile: split for split, names in OPEN.items() for tile in names
}


def recipe(**own: Any) -> Recipe:
    values = {"architecture": "unet", "encoder": "resnet34", "prior": "scratch", **SHARED}
    return Recipe.model_validate({**values, "lr": 1e-5, **own})


def counts(split: str, tiles: list[str]) -> pd.DataFrame:
    """The table of a split: tiles of 100 x 100 px with random counts."""
    rng = np.random.default_rng(len(split))
    table = pd.DataFrame({"split": split, "tile": tiles})
    table["tp"] = rng.integers(1000, 2000, len(tiles))
    table[["fp", "fn"]] = rng.integers(100, 900, (len(tiles), 2))
    table["tn"] = 10_000 - table.tp - table.fp - table.fn
    table = table.assign(
        iou=metrics.iou(table.tp, table.fp, table.fn), f1=metrics.f1(table.tp, table.fp, table.fn)
    )
    if split in OPEN:  # whole tiles have scores of pixels only
        table[["boundary_iou", "boundary_iou_m"]] = rng.random((len(tiles), 2))
        table["found"] = rng.integers(0, 9, len(tiles))
        table[["buildings", "claimed"]] = 9 + rng.integers(0, 9, (len(tiles), 2))
    return table


def sizes(unit: str = "m2") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit": unit, "size": ["0-50", "50+"], "buildings": [3, 0], "found": [2, 0],
            "pixel_recall": [0.75, np.nan], "claimed": [5, 1], "false_claims": [3, 1],
        }
    )  # fmt: skip


ECE = {"val": 0.0312, "test": 0.0448}


def written(
    root: Path,
    tiles: dict[str, list[str]] = OPEN,
    *,
    licence: Licence = FREE,
    looks: int = 1,
    trained: Recipe | None = None,
    metres: bool = True,
    **record: Any,
) -> str:
    """Write the card of an attempt that was scored on these tiles."""
    model = root / "models" / "mine"
    write_json(model / "recipe.json", trained_record("mine", trained or recipe(), **record))
    (model / "model.safetensors").write_text("weights")
    table = pd.concat([counts(split, names) for split, names in tiles.items()])
    if not metres:
        table["boundary_iou_m"] = np.nan
    evaluation = Evaluation(
        scores={split: {"ece": ECE[split]} if split in ECE else {} for split in tiles},
        tiles=table,
        sizes=pd.concat([sizes().assign(split=split) for split in tiles if split in OPEN]),
    )
    return card(model, evaluation, looks=looks, split=SPLIT, licence=licence)


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, with its header row first."""
    part = text.partition(f"## {heading}\n")[2].partition("\n#")[0]
    lines = [line for line in part.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in re.split(r" (?<!\\)\| ", line[2:-2])] for line in lines]


def test_scores_have_intervals(tmp_path: Path) -> None:
    table = rows(written(tmp_path), "Scores")
    assert table[0] == ["", "val (3 tiles)", "test (2 tiles)"]
    assert [row[0].split(",")[0] for row in table[1:]] == [
        "IoU", "F1", "IoU", "F1", "precision", "recall",
    ]  # fmt: skip
    for column, (split, tiles) in enumerate(OPEN.items(), start=1):
        found = counts(split, tiles)
        scores = metrics.pixel_scores(found)
        for row, (name, score) in zip(table[1:], scores.items(), strict=True):
            bounds = intervals_of_tiles(found)[name]
            assert row[column] == f"{score:.3f} [{bounds.low:.3f}, {bounds.high:.3f}]"


def test_scores_of_edges_and_buildings_have_intervals(tmp_path: Path) -> None:
    header, *table = rows(written(tmp_path), "Edges, buildings, probabilities")
    assert header == ["", "val (3 tiles)", "test (2 tiles)"]
    assert [row[0] for row in table] == [
        "boundary IoU at 3 px, mean over tiles", "boundary IoU at 1 m, mean over tiles",
        "building F1, mean over tiles", "building F1, pooled over buildings",
        "expected calibration error (ECE)",
    ]  # fmt: skip
    for column, (split, tiles) in enumerate(OPEN.items(), start=1):
        found = counts(split, tiles)
        bounds = intervals_of_tiles(found)["boundary_iou_m"]
        score = f"{found.boundary_iou_m.mean():.3f}"
        assert table[1][column] == f"{score} [{bounds.low:.3f}, {bounds.high:.3f}]"
        pooled = 2 * found.found.sum() / (found.buildings + found.claimed).sum()
        assert table[3][column].startswith(f"{pooled:.3f} [")
        assert table[4][column] == f"{ECE[split]:.3f}"


def test_without_gsd_no_score_is_in_metres(tmp_path: Path) -> None:
    table = rows(written(tmp_path, metres=False), "Edges, buildings, probabilities")
    assert [row[0].split(",")[0] for row in table[1:3]] == [
        "boundary IoU at 3 px", "building F1"
    ]  # fmt: skip


def test_found_and_false_buildings_are_listed_by_size(tmp_path: Path) -> None:
    header, *table = rows(written(tmp_path), "By size of building")
    assert header[:4] == ["", "val: found", "val: share of their pixels", "val: false buildings"]
    assert table == [
        ["0-50 m²", *["2 of 3", "0.750", "3"] * 2],
        ["50+ m²", *["0 of 0", "", "1"] * 2],
    ]
    assert len(rows(written(tmp_path, SEALED), "By size of building")[0]) == 4


def test_every_tile_is_listed(tmp_path: Path) -> None:
    header, *table = rows(written(tmp_path), "By tile")
    assert header == ["split", "tile", "building", "IoU", "F1"]
    assert [row[:2] for row in table] == [
        ["val", "v1"], ["val", "007"], ["val", "NA"], ["test", "t1"], ["test", r"a\|b"],
    ]  # fmt: skip
    first = counts("val", OPEN["val"]).iloc[0]
    assert table[0][2:] == [
        f"{(first.tp + first.fn) / 10_000:.1%}", f"{first.iou:.3f}", f"{first.f1:.3f}"
    ]  # fmt: skip


def test_a_sealed_test_split_shows_nothing(tmp_path: Path) -> None:
    text = written(tmp_path, SEALED)
    table = rows(text, "Scores")
    assert table[0][2] == "test (2 tiles)"
    assert {row[2] for row in table[1:]} == {"sealed"}
    shapes = rows(text, "Edges, buildings, probabilities")
    assert {row[2] for row in shapes[1:]} == {"sealed"}
    assert "Test is sealed" in text
    assert not {"t1", r"a\|b"} & {row[1] for row in rows(text, "By tile")}
    assert [result.dataset_split for result in ModelCard(text).data.eval_results] == [
        "validation"
    ] * 2
    assert "sealed" not in written(tmp_path).partition("## Use")[0]


def test_whole_tiles_have_columns_of_their_own(tmp_path: Path) -> None:
    assert "whole tiles" not in written(tmp_path)
    text = written(tmp_path, {**SEALED, "val_full_tiles": OPEN["val"]})
    header, first, *_ = rows(text, "Scores")
    assert header[3:] == ["val, whole tiles (3 tiles)", "test, whole tiles (2 tiles)"]
    iou = metrics.pixel_scores(counts("val_full_tiles", OPEN["val"]))["iou"]
    assert first[3].startswith(f"{iou:.3f} [")
    assert first[4] == "sealed"
    assert ["val, whole tiles", "NA"] in [row[:2] for row in rows(text, "By tile")]
    assert "Except for those on whole tiles, scores are of patches" in text


def test_several_looks_at_test_are_stated(tmp_path: Path) -> None:
    assert "recipes of this attempt were scored" not in written(tmp_path)
    text = written(tmp_path, looks=2)
    assert "2 recipes of this attempt were scored on these test tiles" in text


def test_the_hub_can_read_the_metadata(tmp_path: Path) -> None:
    data = ModelCard(written(tmp_path)).data
    assert (data.license, data.library_name) == ("apache-2.0", "roofseg")
    assert "unet" in data.tags
    expected = [
        (name, dataset, split, round(metrics.pixel_scores(counts(ours, OPEN[ours]))[key], 4))
        for ours, split in {"val": "validation", "test": "test"}.items()
        for key, name, dataset in (("iou", "mean_iou", "city"), ("f1", "f1", "city"))
    ]
    assert expected == [
        (result.metric_type, result.dataset_type, result.dataset_split, result.metric_value)
        for result in data.eval_results
    ]


@pytest.mark.parametrize(
    ("prior", "data", "expected"),
    [
        ("scratch", FREE, "apache-2.0"),
        ("resnet34_imagenet", FREE, "other"),
        ("scratch", Licence("other", "Ask first."), "other"),
    ],
)
def test_the_licence_of_the_weights_follows_from_prior_and_data(
    tmp_path: Path, prior: str, data: Licence, expected: str
) -> None:
    text = written(tmp_path, licence=data, trained=recipe(prior=prior))
    header = ModelCard(text).data
    assert header.license == expected
    assert (header.license_name is None) == (expected != "other")
    assert f"**Prior** `{prior}`: " in text
    assert (
        f"**Data** `city`{' (Apache-2.0): Made here.' if data == FREE else ': Ask first.'}" in text
    )


@pytest.mark.parametrize(
    ("gsd", "told"),
    [
        ((), "of unknown ground sampling distance"),
        ((0.3,), "0.3 m per pixel"),
        ((0.263, 0.264, 0.265), "0.263 to 0.265 m per pixel"),
    ],
)
def test_the_card_tells_the_gsd(tmp_path: Path, gsd: tuple[float, ...], told: str) -> None:
    assert f"64 x 64 px, {told}" in written(tmp_path, gsd=gsd)


def test_the_card_describes_model_data_and_recipe(tmp_path: Path) -> None:
    text = written(tmp_path, gsd=(0.3, 0.5))
    weights = sha256_file(tmp_path / "models" / "mine" / "model.safetensors")
    for told in (
        "4.00 M in the encoder, 1.15 M in the decoder; 5.15 M trained",
        "64 x 64 px, 0.3 or 0.5 m per pixel",
        "2 tiles for training, 3 for",
        f"`{weights}`",
        "`0123456789ab`",
        "2 of 3, by val IoU",
        "\nlr: 1e-05\n",
        "\nema_decay: null\n",
        "Trained on cpu (bf16-mixed) with torch 2.14.1",
    ):
        assert told in text
    unknown = written(tmp_path, gsd=())
    assert (
        "the scale of its tiles, of unknown ground sampling distance. Resample imagery" in unknown
    )
    assert ", frozen" not in text
    assert "`resnet34`, frozen" in written(tmp_path, trained=recipe(freeze_epochs="all"))
    lora = written(tmp_path, trained=recipe(lora_rank=8))
    assert "`resnet34`, adapted by LoRA of rank 8 (proj, qkv)" in lora
    assert "5.15 M trained, 0.15 M of them by LoRA |" in lora


def test_warnings_about_synthetic_data_and_missing_weights_are_at_the_top(tmp_path: Path) -> None:
    sam = recipe(architecture="sam_conv", encoder="sam_vit_b", freeze_epochs="all")
    assert "> **" not in written(tmp_path)
    text = written(tmp_path, trained=sam, dataset="sample")
    top = text.partition("## Model")[0]
    assert "# mine (no SAM weights)\n" in top
    assert f"> **Synthetic.** {SYNTHETIC}" in top
    assert "> **No SAM weights.** The encoder started from random weights" in top


def test_missing_sam_weights_are_said_along_a_chain_of_models(tmp_path: Path) -> None:
    sam = {"architecture": "vit_unet", "encoder": "mobile_sam"}
    scratch = prior_record("scratch")
    model = {"attempt": "old", "dataset": "city", "digest": "0" * 12, "part": "encoder"}
    chain = {**scratch, "prior": "old", "model": {**model, "prior": scratch}}
    first = recipe(**sam)
    # A model of this project, and of another, whose recipe is known by its digest alone.
    for earlier in (first.model_dump(mode="json"), "0123456789ab"):
        later = recipe(**sam, prior="old", declared={"part": "encoder", "recipe": earlier})
        assert later.without_sam == (earlier != "0123456789ab")
        text = written(tmp_path, trained=later, prior=chain)
        assert "# mine (no SAM weights)\n" in text
        assert "`mobile_sam`, the image encoder of MobileSAM |" in text
    hub = {**chain, "model": {**model, "prior": {**scratch, "prior": "of_the_hub"}}}
    later = recipe(architecture="dpt", encoder="tu-sam2_hiera_tiny", prior="old")
    text = written(tmp_path, trained=later, prior=hub)
    assert "no SAM weights" not in text
    assert "`tu-sam2_hiera_tiny`, the image encoder of Segment Anything 2 |" in text


def test_one_tile_has_no_interval(tmp_path: Path) -> None:
    score = metrics.pixel_scores(counts("val", ["007"]))["iou"]
    text = written(tmp_path, {"val": ["007"]})
    assert rows(text, "Scores")[1][1] == f"{score:.3f}"
    assert rows(text, "By tile")[1][1] == "007"


def test_the_command_on_the_card_is_valid(tmp_path: Path) -> None:
    (told,) = re.findall(r"^\$ roofseg predict (.*)$", written(tmp_path), re.MULTILINE)
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    args = parser.parse_args(told.split())
    assert args.model == [tmp_path / "models" / "mine"]
    assert (args.inputs, args.out) == (["tile.tif"], Path("roofs"))


def test_writing_a_card_again_gives_the_same_text(tmp_path: Path) -> None:
    assert written(tmp_path) == written(tmp_path)


def test_cards_do_not_import_torch_scipy_or_matplotlib() -> None:
    code = (
        "import sys, stages, roofseg.evaluation.model_card; "
        "print({'torch', 'scipy', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_card_says_how_much_is_labelled(tmp_path: Path) -> None:
    assert "labelled:" not in written(tmp_path / "a", patch_size=100)
    text = written(tmp_path / "b", patch_size=125)  # larger than the counts of the tiles
    assert "Not all pixels are labelled: 64.0% of val, 64.0% of test. The others count" in text
