"""The stages of cross-validation: the division into folds, and one run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from project import PARAMS
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, make, tile_pixels, write_dataset, write_raster

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file, write_json
from roofseg.core.weights import write_weights
from roofseg.evaluation.evaluate import predict
from roofseg.inference.torch_predictor import load
from roofseg.patches import SEEN_COLUMNS, read_patches, read_seen_tiles
from roofseg.recipe.parsing import parse_params
from roofseg.studies.folds import read_folds
from roofseg.studies.report.records import read_record
from stages import divide_folds, fold_run

pytestmark = pytest.mark.usefixtures("one_thread")

CallMain = Callable[..., None]
SPLIT = {**dict.fromkeys("abcd", "train"), "e": "val", "f": "val", "t": "test"}
RUN = ("folds", "small-2", "--attempt", "small", "--fold", 2)
MODEL, RECORD = Path("studies/folds/small-2"), Path("metrics/studies/runs/folds/small-2.json")


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of six tiles in a row and one of test, and its patches."""
    folder = tmp_path_factory.mktemp("cut")
    make(write_dataset(folder / "data" / "tiny", SPLIT), folder / "patches")
    return folder


@pytest.fixture
def project(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is ready to train, without test patches, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROOFSEG_STATE_DIR", raising=False)
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    shutil.rmtree("patches/test")
    prior = Path("weights/scratch.safetensors")
    write_weights(prior, {})
    Path("params.yaml").write_text(PARAMS)
    write_recipe({"name": "scratch"})
    return tmp_path


def write_recipe(prior: dict[str, Any]) -> None:
    """Write the recipe of the attempt ``small`` as the stage recipe@small does."""
    recipe = parse_params(PARAMS).recipe("small").model_dump(mode="json")
    record = {
        **{"study": "folds", "attempt": "small", "label": "small", "dataset": "tiny"},
        **{"patch_size": 64, "overrides": {}, "recipe": recipe, "prior": prior},
        "prior_sha256": sha256_file(Path("weights/scratch.safetensors")),
    }
    write_json(Path("studies/recipes/small/folds.json"), record)


def divide(call_main: CallMain, folds: int) -> dict[str, int]:
    call_main(divide_folds, "folds", "--folds", folds, "--seed", 1)
    return dict(read_folds(Path("studies/folds.csv")).of_tile)


def test_all_tiles_of_train_and_val_are_divided_and_none_of_test(
    project: Path, call_main: CallMain, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = divide(call_main, 3)
    assert sorted(folds) == list("abcdef")
    assert sorted(folds.values()) == [1, 1, 2, 2, 3, 3]
    printed = capsys.readouterr()
    assert "6 tiles in 6 squares of 29 m, in 3 folds of 2 + 2 + 2" in printed.out
    assert divide(call_main, 3) == folds
    # The tiles are a row without gaps.
    pairs = [
        f"{one} and {other}" for one, other in pairwise("abcdef") if folds[one] != folds[other]
    ]
    assert f"tiles of two folds touch, so scores may be too high: {', '.join(pairs)}" in printed.err
    record = read_folds(Path("studies/folds.csv")).record()
    assert (record["side"], record["touching"]) == (29, len({*"".join(pairs)} & {*"abcdef"}))


def test_tiles_without_georeference_are_not_called_neighbours(
    project: Path, call_main: CallMain, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = pd.read_csv("patches/tiles.csv", dtype=str)
    tiles.assign(crs="", transform="").to_csv("patches/tiles.csv", index=False)
    divide(call_main, 3)
    printed = capsys.readouterr()
    assert "6 tiles in 6 groups, in 3 folds" in printed.out
    assert "no georeference, so nothing tells which tiles are neighbours" in printed.err


def test_neighbours_are_those_of_whole_tiles(
    project: Path, call_main: CallMain, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiles touch whose patches, cut from their centres, do not."""
    data = write_dataset(project / "data" / "pairs", SPLIT)
    for seed, (name, place) in enumerate(zip(SPLIT, (0, 1, 4, 5, 8, 9, 20), strict=True)):
        image, mask = tile_pixels(seed, 96)
        profile = {"crs": CRS, "transform": TRANSFORM @ Affine.translation(96 * place, 0)}
        write_raster(data / "imgs" / f"{name}.tif", image, **profile)
        write_raster(data / "msks" / f"{name}.tif", mask * np.uint8(255), **profile)
    make(data, Path("patches"))
    folds = divide(call_main, 3)
    assert [folds["a"], folds["c"], folds["e"]] == [folds["b"], folds["d"], folds["f"]]
    assert set(folds.values()) == {1, 2, 3}
    assert "6 tiles in 3 groups of neighbours, in 3 folds" in capsys.readouterr().out


def test_more_folds_than_groups_are_an_error(project: Path, call_main: CallMain) -> None:
    with pytest.raises(
        UserError, match=r"^studies/studies\.yaml: studies\.folds\.folds: found 7, but the 6 tiles"
    ):
        divide(call_main, 7)
    assert not Path("studies/folds.csv").exists()


def test_patches_of_two_folds_that_are_the_same_are_an_error(
    project: Path, call_main: CallMain
) -> None:
    """Two tiles of train may be copies of one, which no other check compares."""
    shutil.copy("patches/train/images/a.jpg", "patches/train/images/b.jpg")
    shutil.copy("patches/train/images/a.jpg", "patches/train/images/c.jpg")
    shutil.copy("patches/train/images/a.jpg", "patches/train/images/d.jpg")
    with pytest.raises(UserError, match=r"two folds overlap.* are the same, pixel by pixel.*split"):
        divide(call_main, 3)
    assert not Path("studies/folds.csv").exists()


def test_a_run_whose_folds_do_not_fit_is_an_error_before_it_trains(
    project: Path, call_main: CallMain
) -> None:
    divide(call_main, 3)
    with pytest.raises(UserError, match=r"^--fold: found 9; expected 1 to 3"):
        call_main(fold_run, *RUN[:-1], 9)
    folds = Path("studies/folds.csv")
    folds.write_text("\n".join(folds.read_text().splitlines()[:-1]))
    with pytest.raises(UserError, match=r"folds\.csv: expected the 6 tiles .*found 5, and f only"):
        call_main(fold_run, *RUN)
    assert not Path("metrics").exists()


@pytest.mark.whole
def test_a_run_keeps_its_model_and_what_it_says_of_tiles_that_it_never_saw(
    project: Path, call_main: CallMain
) -> None:
    folds = divide(call_main, 3)
    call_main(fold_run, *RUN)
    scored = sorted(tile for tile in folds if folds[tile] == 2)
    seen = {row["tile"]: row["split"] for row in read_seen_tiles(MODEL / "tiles.csv")}
    assert seen == {tile: {1: "train", 3: "val"}[fold] for tile, fold in folds.items() if fold != 2}
    predictor = load(MODEL, device="cpu", precision="32-true")
    patches = [p for part in ("train", "val") for p in read_patches(Path("patches") / part)]
    own = [patch for patch in patches if patch.tile in scored]
    expected = predict(predictor, [patch.image for patch in own], 1)
    kept = [np.load(MODEL / "out_of_fold" / f"{patch.tile}.npy") for patch in own]
    assert np.array_equal(kept, expected)
    assert kept[0].dtype == np.float32
    table = read_record(Path("metrics/studies/runs"), "folds", "small-2")
    assert list(table.tile) == scored
    assert list(table.split) == [SPLIT[tile] for tile in scored]
    assert set(table.fold) == {2}
    record = read_json(MODEL / "recipe.json")
    assert (record["attempt"], record["fold"], record["gsd"]) == ("small", 2, [0.3])


@pytest.mark.whole
def test_the_scored_fold_changes_its_scores_and_nothing_that_is_learnt(
    project: Path, call_main: CallMain
) -> None:
    """The model of a fold is the same byte by byte whatever the tiles are that it is scored on."""
    folds = divide(call_main, 3)
    call_main(fold_run, *RUN)
    model, scores = (MODEL / "model.safetensors").read_bytes(), read_json(RECORD)["scored"]
    (chosen, *_), (tile, *_) = ([t for t in folds if folds[t] == fold] for fold in (3, 2))

    def redraw(name: str) -> None:
        [mask] = Path("patches").glob(f"*/masks/{name}.png")
        [other] = Path("patches").glob(f"*/masks/{'a' if name != 'a' else 'b'}.png")
        shutil.copy(other, mask)
        shutil.rmtree(".state")

    redraw(tile)
    call_main(fold_run, *RUN)
    assert (MODEL / "model.safetensors").read_bytes() == model
    assert read_json(RECORD)["scored"] != scores
    before = read_json(RECORD)["result"]["best_val_iou"]
    redraw(chosen)
    call_main(fold_run, *RUN)
    assert read_json(RECORD)["result"]["best_val_iou"] != before


def test_a_prior_that_has_seen_the_scored_fold_is_refused(
    project: Path, call_main: CallMain
) -> None:
    folds = divide(call_main, 3)
    tile = next(tile for tile in folds if folds[tile] == 2)
    sha256 = sha256_file(Path("data/tiny/imgs") / f"{tile}.tif")
    values = ("city", "train", "elsewhere", sha256, "64", "", "")
    write_recipe({"name": "old", "tiles": [dict(zip(SEEN_COLUMNS, values, strict=True))]})
    with pytest.raises(
        UserError, match=rf"^fold 2: the prior scratch has seen .*{tile} \(test here\).*same image"
    ):
        call_main(fold_run, *RUN)
    assert not Path("metrics").exists()
