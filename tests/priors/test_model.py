"""Priors that are models: which weights they take, and which tiles they must not have seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from records import SHARED, trained_record
from seen_rows import row, tile

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file, write_json
from roofseg.core.weights import read_weights, write_weights
from roofseg.models.roof_model import build_model, save_model
from roofseg.patches import SEEN_COLUMNS, read_seen_tiles, write_seen_tiles
from roofseg.priors.model import make_model_prior
from roofseg.recipe.params import Recipe
from roofseg.recipe.priors import ModelPrior
from roofseg.tiles.manifest import write_manifest
from roofseg.training.prior import load_prior

ENCODER = "tu-mobilenetv3_small_050"
DIGEST = "0123456789ab"


def recipe(**own: Any) -> Recipe:
    model = {"architecture": "unet", "encoder": ENCODER, "prior": "scratch"}
    return Recipe.model_validate({**model, **SHARED, **own})


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model, and patches/tiles.csv of a dataset that it has not seen."""
    monkeypatch.chdir(tmp_path)
    folder = Path("models") / "old"
    torch.manual_seed(1)
    network = build_model("unet", ENCODER, dropout=0.0, patch_size=64)
    save_model(folder / "model.safetensors", network)
    write_json(folder / "recipe.json", trained_record("old", recipe()))
    write_seen_tiles(folder / "tiles.csv", [row("a", "train", "1"), row("b", "val", "2")])
    write_manifest(Path("tiles.csv"), [tile("x", "train", "7"), tile("y", "val", "8")])
    return folder


def make(model: Path, decisive: Any = None, digest: str = DIGEST, **own: Any) -> Path:
    declared = ModelPrior.model_validate({"model": str(model), **own})
    return make_model_prior(
        "mine",
        declared,
        Path("weights"),
        decisive=decisive or {"part": declared.part, "recipe": DIGEST},
        digest=digest,
        dataset="town",
        listing=Path("tiles.csv"),
        patch_size=64,
    )


@pytest.mark.parametrize("part", ["encoder", "all"])
def test_the_encoder_or_the_whole_model_is_taken(model: Path, part: str) -> None:
    path = make(model, part=part)
    trained = read_weights(model / "model.safetensors")
    new = build_model("unet", ENCODER, dropout=0.0, patch_size=64)
    load_prior(new, path, with_decoder=part == "all")
    for name, tensor in new.state_dict().items():
        if name.endswith((".weight", "running_mean")) and tensor.std() > 0:
            taken = part == "all" or name.startswith("encoder.")
            assert torch.equal(tensor, trained[name]) == taken, name


def test_the_record_has_the_whole_chain(model: Path) -> None:
    record = read_json(make(model).with_suffix(".json"))
    assert record["source"] == "model old, trained on city"
    assert record["revision"] == DIGEST
    assert record["source_sha256"] == sha256_file(model / "model.safetensors")
    assert record["model"] == {
        "attempt": "old",
        "dataset": "city",
        "digest": DIGEST,
        "architecture": "unet",
        "part": "encoder",
        "prior": read_json(model / "recipe.json")["prior"],
    }
    assert record["tiles"] == read_seen_tiles(model / "tiles.csv")
    assert record["licence"]["spdx"] == "other"
    assert "dataset city, whose terms apply" in record["licence"]["terms"]
    record = read_json(make(model, licence="CC-BY-4.0").with_suffix(".json"))
    assert record["licence"]["spdx"] == "CC-BY-4.0"


def test_a_model_that_saw_val_makes_no_prior(model: Path) -> None:
    write_manifest(Path("tiles.csv"), [tile("y", "val", "1")])
    with pytest.raises(UserError, match=r"^priors\.models\.mine: the model .*old has seen tiles"):
        make(model)
    assert not (Path("weights")).exists()


def test_a_model_without_a_record_of_its_tiles_must_be_trained_again(model: Path) -> None:
    (model / "tiles.csv").unlink()
    with pytest.raises(UserError, match=r"tiles\.csv: no such file\. .*train the model again"):
        make(model)
    (model / "tiles.csv").write_text("tile,split\n")
    with pytest.raises(UserError, match=r"tiles\.csv: expected .* columns dataset,split,tile"):
        make(model)
    (model / "tiles.csv").write_text(",".join(SEEN_COLUMNS) + "\n")
    with pytest.raises(UserError, match=r"tiles\.csv: lists no tile\. .*train the model again"):
        make(model)


def test_a_model_whose_training_failed_makes_no_prior(model: Path) -> None:
    record = read_json(model / "recipe.json")
    record["result"]["failure"] = "the loss is NaN."
    write_json(model / "recipe.json", record)
    with pytest.raises(UserError, match=r"recipe\.json: its training ended early: the loss is NaN"):
        make(model)


def test_a_model_with_weights_that_are_not_finite_makes_no_prior(model: Path) -> None:
    tensors = read_weights(model / "model.safetensors")
    name = next(name for name in tensors if re.match(r"encoder.*weight", name))
    tensors[name].view(-1)[0] = float("nan")
    write_weights(model / "model.safetensors", tensors)
    with pytest.raises(UserError, match=r"model\.safetensors: \S+ has 1 of \d+ values"):
        make(model)
    write_weights(model / "model.safetensors", {"decoder.w": torch.zeros(1)})
    with pytest.raises(UserError, match=r"holds no tensor of the model's encoder"):
        make(model)


def test_another_recipe_than_declared_is_an_error(model: Path) -> None:
    with pytest.raises(UserError, match=rf"digest is {DIGEST}, .* write `recipe: '{DIGEST}'`"):
        make(model, digest="f" * 12)


def test_the_statistics_of_the_earlier_model_stay_with_its_weights(model: Path) -> None:
    own = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    record = trained_record("old", recipe(prior="scratch", declared={"sha256": "1" * 64, **own}))
    write_json(model / "recipe.json", record)
    with pytest.raises(UserError, match=r"Write there mean: \[0\.1, 0\.2, 0\.3\], std: \[0\.4, 0"):
        make(model)
    made = read_json(make(model, {"part": "encoder", **own}, **own).with_suffix(".json"))
    assert {key: made[key] for key in own} == own
    write_json(model / "recipe.json", trained_record("old", recipe()))
    with pytest.raises(UserError, match="Remove mean and std"):
        make(model, {"part": "encoder", **own}, **own)
