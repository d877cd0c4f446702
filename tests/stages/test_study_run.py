"""One run of a study: train on a subset with the code of the pipeline, resume, score val."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph import ROOT
from lightning import Trainer
from project import PARAMS
from tiny_dataset import make, write_dataset

from roofseg.core.errors import StoppedError, UserError
from roofseg.core.files import read_json, sha256_file, write_json
from roofseg.core.weights import write_weights
from roofseg.evaluation.evaluate import predict
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.metrics import table
from roofseg.models.roof_model import build_model
from roofseg.patches import read_patches
from roofseg.recipe.params import Params, Recipe
from roofseg.recipe.parsing import parse_params
from roofseg.studies.in_force import stage_lists, write_lists
from roofseg.studies.runs import probabilities as probabilities_of
from roofseg.studies.runs import subset, tile_scores
from roofseg.training.callbacks import EpochReport
from stages import study_recipe, study_run
from stages._studies import declared_studies

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN = ["a", "b", "e", "f"]
SPLIT = {**dict.fromkeys(TRAIN, "train"), "c": "val", "d": "val", "t": "test"}

CallMain = Callable[..., None]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    make(write_dataset(folder / "data", SPLIT), folder / "patches")
    return folder / "patches"


@pytest.fixture
def params(tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project that is ready to train, without test patches, in the current folder; its params."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROOFSEG_STATE_DIR", raising=False)
    for split in ("train", "val"):
        shutil.copytree(tiles / split, Path("patches") / split)
    write_weights(Path("weights/scratch.safetensors"), {})
    write_json(Path("weights/scratch.json"), {"name": "scratch", "encoder": None})
    Path("params.yaml").write_text(PARAMS)
    return parse_params(PARAMS)


def write_recipe(study: str, recipe: Recipe) -> None:
    """Write the recipe of the attempt ``small`` as the stage recipe@small does."""
    record = {
        "study": study,
        "attempt": "small",
        "label": "small",
        "dataset": "tiny",
        "patch_size": 64,
        "overrides": {},
        "recipe": recipe.model_dump(mode="json"),
        "prior": {},
        "prior_sha256": sha256_file(Path("weights/scratch.safetensors")),
    }
    write_json(Path(f"studies/recipes/small/{study}.json"), record)


@pytest.mark.whole
def test_the_record_has_the_subset_the_recipe_and_the_counts(
    params: Params, call_main: CallMain
) -> None:
    recipe = params.recipe("small")
    write_recipe("budget", recipe)
    call_main(study_run, "budget", "small-2-5", "--attempt", "small", "--tiles", 2, "--seed", 5)
    record = read_json(Path("metrics/studies/runs/budget/small-2-5.json"))
    assert record["train_tiles"] == subset(TRAIN, 2, 5)
    assert (record["study"], record["attempt"], record["label"]) == ("budget", "small", "small")
    assert (record["dataset"], record["patch_size"]) == ("tiny", 64)
    assert record["recipe"] == {**recipe.model_dump(mode="json"), "seed": 5}
    assert [row["tile"] for row in record["scored"]] == ["c", "d"]
    counts = [sum(row[key] for key in ("tp", "fp", "fn", "tn")) for row in record["scored"]]
    assert counts == [64**2] * 2
    ious = [row["tp"] / (row["tp"] + row["fp"] + row["fn"]) for row in record["scored"]]
    assert record["iou"] == pytest.approx(np.mean(ious))
    assert sorted(path.name for path in Path().iterdir()) == [
        *(".state", "metrics", "params.yaml", "patches", "studies", "weights")
    ]


@pytest.mark.whole
def test_tiles_outside_the_subset_do_not_matter(params: Params, call_main: CallMain) -> None:
    """A model learns the same if the training tiles outside its subset change."""
    write_recipe("budget", params.recipe("small").model_copy(update={"epochs": 1}))

    def run() -> dict[str, Any]:
        call_main(study_run, "budget", "small-2-1", "--attempt", "small", "--tiles", 2, "--seed", 1)
        return read_json(Path("metrics/studies/runs/budget/small-2-1.json"))

    before = run()
    masks = Path("patches/train/masks")
    one, *others = sorted(set(TRAIN) - set(before["train_tiles"]))
    shutil.copy(masks / f"{before['train_tiles'][0]}.png", masks / f"{one}.png")
    assert run()["scored"] == before["scored"]
    shutil.copy(masks / f"{others[0]}.png", masks / f"{before['train_tiles'][0]}.png")
    assert run()["scored"] != before["scored"]


@pytest.mark.whole
def test_a_run_that_was_stopped_resumes_to_the_same_bytes(
    params: Params,
    call_main: CallMain,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_recipe("seeds", params.recipe("small"))
    arguments = ("--attempt", "small", "--seed", 1)
    call_main(study_run, "seeds", "whole", *arguments)
    shutil.rmtree(".state")

    def stop_after_one_epoch(_: EpochReport, trainer: Trainer, *__: object) -> None:
        if trainer.current_epoch == 1:
            raise StoppedError("stopped", 143)

    with monkeypatch.context() as patched:
        patched.setattr(EpochReport, "on_train_epoch_start", stop_after_one_epoch)
        with pytest.raises(StoppedError):
            call_main(study_run, "seeds", "stopped", *arguments)
    records = Path("metrics/studies/runs/seeds")
    assert not (records / "stopped.json").exists()
    assert [path.name.partition("@")[0] for path in Path(".state").glob("*@*/")] == ["seeds-small"]
    capsys.readouterr()
    call_main(study_run, "seeds", "stopped", *arguments)
    assert "resumes the run after epoch 1" in capsys.readouterr().out
    assert (records / "stopped.json").read_bytes() == (records / "whole.json").read_bytes()
    # As if DVC was killed before it recorded the output.
    (records / "stopped.json").unlink()
    call_main(study_run, "seeds", "stopped", *arguments)
    assert "writes the outputs of the run that ended" in capsys.readouterr().out
    assert (records / "stopped.json").read_bytes() == (records / "whole.json").read_bytes()


@pytest.mark.whole
def test_seed_and_augmentation_are_those_of_the_run(
    params: Params, call_main: CallMain, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("studies").mkdir()
    Path("studies/studies.yaml").write_text((ROOT / "tests" / "studies_tiny.yaml").read_text())
    write_dataset(Path("data/tiny"), SPLIT, size=8)
    lists = stage_lists(*declared_studies(), ["augmentation"], False)
    write_lists(Path("studies/in_force.yaml"), lists)
    call_main(study_recipe, "cold", "--prior", "weights/scratch.safetensors")
    made = Path("studies/recipes/cold")
    assert read_json(made / "studies.json") == ["augmentation"]
    run = ("augmentation", "cold-heavy-7", "--attempt", "cold", "--seed", 7)
    call_main(study_run, *run, "--augmentation", "heavy")
    record = read_json(Path("metrics/studies/runs/augmentation/cold-heavy-7.json"))
    expected = read_json(made / "augmentation.json")["recipe"]
    assert record["recipe"] == {**expected, "seed": 7, "augmentation": "heavy"}
    assert record["train_tiles"] == TRAIN
    assert "augmentation: cold-heavy-7: val IoU" in capsys.readouterr().out


def test_another_prior_than_the_recipes_is_named(params: Params, call_main: CallMain) -> None:
    write_recipe("seeds", params.recipe("small"))
    write_weights(Path("weights/scratch.safetensors"), {"other": torch.zeros(1)})
    with pytest.raises(
        UserError, match=r"not the prior that .* Run `dvc repro studies/dvc\.yaml:r"
    ):
        call_main(study_run, "seeds", "small-1", "--attempt", "small", "--seed", 1)
    assert not Path("metrics").exists()


def test_tiles_are_scored_as_evaluate_scores_them(tiles: Path) -> None:
    patches = read_patches(tiles / "train")
    model = build_model("unet", "tu-mobilenetv3_small_050", dropout=0.0, patch_size=64)
    predictor = TorchPredictor(model, window=64)
    probabilities = predict(predictor, [patch.image for patch in patches], len(patches))
    truth = np.stack([patch.mask for patch in patches])
    expected = table([patch.tile for patch in patches], probabilities, truth)
    predicted = probabilities_of(model, patches, "cpu")
    assert np.allclose(predicted, probabilities, atol=1e-6)
    assert tile_scores(patches, predicted).equals(expected)
