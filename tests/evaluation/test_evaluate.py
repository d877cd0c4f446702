from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch
from project import PARAMS, git
from records import trained_record
from tiny_dataset import write_raster
from unwritable import full_disk

from roofseg import drawing, metrics
from roofseg.core.entry_point import system_errors_explained
from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.core.images import read_image, read_mask, write_jpeg, write_png
from roofseg.evaluation.assessment import assess
from roofseg.evaluation.evaluate import evaluate, predict
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.models.roof_model import build_model, save_model
from roofseg.patches import CROPS_COLUMNS, Patch
from roofseg.recipe.digest import digest
from roofseg.recipe.params import Params
from roofseg.recipe.parsing import parse_params
from roofseg.recipe.split import read_split
from roofseg.tiles.tile import TilePair
from stages import evaluate as stage

SIDE = 32
GSD = 0.5


def redness() -> torch.nn.Module:
    """A 1 x 1 convolution with logit 20 (red - 0.5), so that red pixels are building."""
    model = torch.nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        model.weight[:] = torch.tensor([20.0, 0.0, 0.0]).view(1, 3, 1, 1)
        model.bias[:] = -10.0
    return model


def patch(tile: str, seed: int) -> Patch:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = (image[:, :, 0] > 100).astype(np.uint8)
    return Patch(tile, image, mask, GSD)


@pytest.fixture
def splits() -> dict[str, list[Patch]]:
    return {
        "val": [patch("a", 0), patch("007", 1), patch("NA", 2)],
        "test": [patch("t", 3)],
    }


def scored(
    tmp_path: Path,
    splits: dict[str, list[Patch]],
    tiles: Mapping[str, list[TilePair]] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    found = evaluate(
        red_predictor(),
        splits,
        tiles=tiles,
        predictions=tmp_path / "predictions",
        results=tmp_path / "results",
        batch_size=2,
    )
    return found.scores


def red_predictor() -> TorchPredictor:
    return TorchPredictor(redness(), window=SIDE)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_predict_gives_the_probability_of_each_pixel(batch_size: int) -> None:
    images = [patch(str(seed), seed).image for seed in range(3)]
    chances = predict(red_predictor(), images, batch_size)
    assert chances.shape == (3, SIDE, SIDE)
    assert chances.dtype == np.float32
    red = np.stack(images)[..., 0] / 255
    np.testing.assert_allclose(chances, 1 / (1 + np.exp(-(20 * red - 10))), atol=1e-5)


def test_scores_follow_from_the_counts_of_the_tiles(
    tmp_path: Path, splits: dict[str, list[Patch]]
) -> None:
    scores = scored(tmp_path, splits)
    assert json.loads((tmp_path / "results/scores.json").read_text()) == scores
    assert list(scores) == ["val", "test"]

    text = (tmp_path / "results/tiles.csv").read_text()
    assert text.startswith("split,tile,tp,fp,fn,tn,iou,f1,precision,recall,boundary_iou,")
    tiles = pd.read_csv(tmp_path / "results/tiles.csv", dtype={"tile": str}, keep_default_na=False)
    assert list(tiles.tile) == ["a", "007", "NA", "t"]
    assert (tiles[metrics.COUNTS].sum(axis=1) == SIDE * SIDE).all()
    # Red above 127 is predicted and above 100 is true, so there are no false alarms.
    for patch, row in zip([*splits["val"], *splits["test"]], tiles.itertuples(), strict=True):
        red = patch.image[:, :, 0]
        assert (row.tp, row.fp) == ((red > 127).sum(), 0)
        assert row.fn == ((red > 100) & (red <= 127)).sum()
    for split, table in tiles.groupby("split"):
        assert metrics.pixel_scores(table).items() <= scores[str(split)].items()


def test_all_measurements_are_written(tmp_path: Path, splits: dict[str, list[Patch]]) -> None:
    scores = scored(tmp_path, splits)
    results = tmp_path / "results"
    tiles = pd.read_csv(results / "tiles.csv")
    sizes = pd.read_csv(results / "sizes.csv")
    bins = pd.read_csv(results / "reliability.csv")
    for split, patches in splits.items():
        images = [patch.image for patch in patches]
        expected = assess(patches, predict(red_predictor(), images, 2))
        assert scores[split] == expected.scores
        for table, wanted in (
            (tiles, expected.table),
            (sizes, expected.sizes),
            (bins, expected.reliability),
        ):
            found = table[table.split == split].drop(columns="split")
            assert list(found.columns) == list(wanted.columns)
            numbers = wanted.select_dtypes("number")
            np.testing.assert_allclose(
                found[numbers.columns], numbers.to_numpy(float, na_value=np.nan), atol=1e-6
            )


def test_whole_tiles_have_scores_of_pixels_only(
    tmp_path: Path, splits: dict[str, list[Patch]]
) -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(1, 256, (70, 50, 3), dtype=np.uint8)
    tile = TilePair("a", "val", tmp_path / "imgs" / "a.png", tmp_path / "msks" / "a.png")
    write_raster(tile.image, image)
    write_raster(tile.mask, np.where(image[:, :, 0] > 100, 255, 0).astype(np.uint8))
    scores = scored(tmp_path, splits, {"val": [tile]})
    lines = (tmp_path / "results/tiles.csv").read_text().splitlines()
    (whole,) = [line.split(",") for line in lines if line.startswith("val_full_tiles,")]
    assert sum(map(int, whole[2:6])) == 70 * 50
    assert whole[-7:] == [""] * 7
    # Empty cells in the column do not turn the counts of other rows into floats.
    assert [cell.isdigit() for cell in lines[1].split(",")[-5:]] == [True] * 3 + [False] * 2
    tp, fp, fn = map(int, whole[2:5])
    rates = [float(metrics.precision(tp, fp)), float(metrics.recall(tp, fn))]
    assert [float(cell) for cell in whole[8:10]] == pytest.approx(rates, abs=1e-6)
    assert scores["val_full_tiles"] == {
        "iou": metrics.iou(tp, fp, fn), "f1": metrics.f1(tp, fp, fn),
        "iou_pooled": metrics.iou(tp, fp, fn), "f1_pooled": metrics.f1(tp, fp, fn),
        "precision": metrics.precision(tp, fp), "recall": metrics.recall(tp, fn),
    }  # fmt: skip
    for name in ("sizes.csv", "reliability.csv", "pr.csv"):
        assert "full_tiles" not in (tmp_path / "results" / name).read_text()


def test_curve_goes_through_the_scores_at_the_threshold(
    tmp_path: Path, splits: dict[str, list[Patch]]
) -> None:
    scores = scored(tmp_path, splits)
    curve = pd.read_csv(tmp_path / "results/pr.csv")
    assert list(curve.columns) == ["split", "threshold", "precision", "recall"]
    assert list(curve.split.unique()) == ["val", "test"]
    middle = curve[curve.threshold == metrics.THRESHOLD].set_index("split")
    for split, found in scores.items():
        assert middle.precision[split] == pytest.approx(found["precision"], abs=1e-6)
        assert middle.recall[split] == pytest.approx(found["recall"], abs=1e-6)


def test_pictures_of_every_tile(tmp_path: Path, splits: dict[str, list[Patch]]) -> None:
    scored(tmp_path, splits)
    for split, patches in splits.items():
        for patch in patches:
            folder, name = tmp_path / "predictions" / split, f"{patch.tile}.png"
            mask = read_mask(folder / "masks" / name)
            np.testing.assert_array_equal(mask, patch.image[:, :, 0] > 127)
            overlay = drawing.overlay(patch.image, patch.mask, mask)
            np.testing.assert_array_equal(read_image(folder / "overlays" / name), overlay)
            image, *_ = drawing.split_panel(read_image(folder / "panels" / name))
            np.testing.assert_array_equal(image, patch.image)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_run_gives_the_same_bytes_and_a_sealed_run_removes_test(
    tmp_path: Path, splits: dict[str, list[Patch]]
) -> None:
    scored(tmp_path, splits)
    first = contents(tmp_path)
    scored(tmp_path, splits)
    assert contents(tmp_path) == first
    scores = scored(tmp_path, {"val": splits["val"]})
    assert "test" not in scores
    assert not [path for path in contents(tmp_path) if "test" in path]
    assert "test" not in (tmp_path / "results/tiles.csv").read_text()


def test_a_damaged_whole_tile_leaves_existing_files_unchanged(
    tmp_path: Path, splits: dict[str, list[Patch]]
) -> None:
    val = {"val": splits["val"]}
    scored(tmp_path, val)
    before = contents(tmp_path)
    damaged = tmp_path / "a.tif"
    damaged.write_bytes(b"II*")
    with pytest.raises(UserError, match=r"a\.tif: cannot be read"):
        scored(tmp_path, splits, {"val": [TilePair("a", "val", damaged, damaged)]})
    damaged.unlink()
    assert contents(tmp_path) == before


# Tests of the stage, on a project in a temporary folder

NUDGES: dict[str, tuple[int, int]] = {}


@pytest.fixture
def project(
    tmp_path: Path, splits: dict[str, list[Patch]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A git repository with patches, and a model trained with the recipe of params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", "--attempt", "small"])
    dataset = tmp_path / "data/tiny"
    dataset.mkdir(parents=True)
    lines = [f"{patch.tile},{split}" for split, patches in splits.items() for patch in patches]
    (dataset / "split.csv").write_text("\n".join(["tile,split", *lines, "x,train"]) + "\n")
    (dataset / "nudges.csv").write_text("tile,row,col\n")
    (dataset / "LICENSE.md").write_text("Ask the city.\n")
    for split, patches in splits.items():
        folder = tmp_path / "patches" / split
        for patch in patches:
            write_jpeg(folder / "images" / f"{patch.tile}.jpg", patch.image)
            write_png(folder / "masks" / f"{patch.tile}.png", patch.mask * np.uint8(255))
        gsd = GSD if split == "val" else ""
        rows = [f"{patch.tile},0,0,centre,0.5,{gsd},,," for patch in patches]
        (folder / "crops.csv").write_text("\n".join([",".join(CROPS_COLUMNS), *rows]) + "\n")

    params = write_params(tmp_path)
    recipe = params.recipe("small")
    model = build_model(recipe.architecture, recipe.encoder, dropout=0.0, patch_size=SIDE)
    save_model(tmp_path / "models/small/model.safetensors", model)
    wanted = digest(recipe, params, read_split(dataset), NUDGES)
    record = trained_record("small", recipe, digest=wanted, dataset="tiny", patch_size=SIDE)
    write_json(tmp_path / "models/small/recipe.json", record)
    git(tmp_path, "init", "-q")
    return tmp_path


def write_params(root: Path, old: str = "", new: str = "") -> Params:
    text = PARAMS.replace("patch_size: 64", f"patch_size: {SIDE}").replace(old, new, 1)
    (root / "params.yaml").write_text(text)
    return parse_params(text)


@pytest.mark.whole
def test_the_stage_scores_only_val_while_the_recipe_is_not_final(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.main()
    scores = json.loads((project / "metrics/attempts/small/scores.json").read_text())
    assert list(scores) == ["val"]
    headline = json.loads((project / "metrics/small.json").read_text())
    assert headline["val"] == {key: scores["val"][key] for key in ("iou", "f1")}
    assert headline["test"] == {"iou": "sealed", "f1": "sealed"}
    assert [path.name for path in (project / "predictions/small").iterdir()] == ["val"]
    card = (project / "metrics/attempts/small/card.md").read_text()
    assert f"{scores['val']['iou']:.3f} [" in card
    assert "Ask the city." in card
    results = project / "metrics/attempts/small"
    costs = json.loads((results / "costs.json").read_text())
    assert costs["model_bytes"] == (project / "models/small/model.safetensors").stat().st_size
    times = json.loads((results / "inference_times.json").read_text())
    assert times["megapixels_per_second"] > 0
    assert "test stays sealed" in capsys.readouterr().out


def test_the_stage_scores_test_once_the_recipe_is_final_and_committed(project: Path) -> None:
    trained = json.loads((project / "models/small/recipe.json").read_text())["digest"]
    git(project, "add", "params.yaml")
    git(project, "commit", "-q", "-m", "not final yet")
    write_params(project, "\n  small: null", f'\n  small: "{trained}"')
    with pytest.raises(UserError, match="commit"):
        stage.main()
    git(project, "add", "params.yaml")
    git(project, "commit", "-q", "-m", "final")
    stage.main()
    scores = json.loads((project / "metrics/attempts/small/scores.json").read_text())
    assert list(scores) == ["val", "test"]
    headline = json.loads((project / "metrics/small.json").read_text())
    assert headline["test"] == {key: scores["test"][key] for key in ("iou", "f1")}
    # Only the tiles of val have a known GSD.
    assert "boundary_iou_m" in scores["val"]
    assert "boundary_iou_m" not in scores["test"]
    sizes = pd.read_csv(project / "metrics/attempts/small/sizes.csv").set_index("split")
    assert set(sizes.unit["val"]) == {"m2"}
    assert set(sizes.unit["test"]) == {"px"}


MODEL = Path("models/small/model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda: MODEL.unlink(), r"small/model\.safetensors: no such file"),
        (lambda: MODEL.write_bytes(pickle.dumps({})), "expected a safetensors file"),
        (
            lambda: save_model(MODEL, redness()),
            r"not the weights of this architecture .*: the file lacks",
        ),
        (lambda: Path("models/small/recipe.json").unlink(), r"recipe\.json: no such file"),
        (lambda: Path("models/small/recipe.json").write_text("{"), r"recipe\.json: not JSON"),
        (lambda: shutil.rmtree("patches/val"), r"patches/val/crops\.csv: no such file"),
        (lambda: Path("patches/val/images/a.jpg").write_bytes(b""), r"a\.jpg: 0 bytes that do not"),
        (lambda: Path("data/tiny/LICENSE.md").unlink(), r"LICENSE\.md: no such file"),
        (lambda: Path("data/tiny/split.csv").unlink(), r"split\.csv: no such file"),
        (lambda: Path("params.yaml").write_text("- lr"), r"params\.yaml: expected a mapping"),
    ],
    ids=[
        "no weights",
        "a pickle",
        "another architecture",
        "no recipe",
        "half a recipe",
        "no patches",
        "a broken patch",
        "no terms",
        "no split",
        "parameters",
    ],
)
def test_the_stage_names_a_missing_file_before_it_writes_or_opens_test(
    project: Path, call_main: Callable[..., None], spoil: Callable[[], object], says: str
) -> None:
    spoil()
    with pytest.raises(UserError, match=says):
        call_main(stage, "--attempt", "small")
    assert not (project / "predictions").exists()
    assert not (project / "metrics").exists()


@pytest.mark.whole
def test_the_stage_names_the_file_that_a_full_disk_could_not_hold(
    project: Path, call_main: Callable[..., None]
) -> None:
    full = pytest.raises(UserError, match=r"^predictions/.*: File too large\. Raise the limit")
    with full_disk(3000), full, system_errors_explained():
        call_main(stage, "--attempt", "small")
    assert list((project / "predictions").iterdir()) == []
    assert not list(project.rglob("scores.json"))


def test_the_stage_refuses_a_model_of_another_recipe(project: Path) -> None:
    write_params(project, "lr: 0.001", "lr: 0.0003")
    with pytest.raises(UserError, match=r"recipe\.json.*dvc repro train@small"):
        stage.main()
    assert not (project / "predictions").exists()
