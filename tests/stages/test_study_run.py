"""One run of a study: the project's own training, on a subset, kept and scored like any other."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.callbacks import Callback
from project import PARAMS
from tiny_dataset import make, write_dataset

from roofseg.core.files import read_json, write_json
from roofseg.core.weights import write_weights
from roofseg.evaluation.evaluate import predict
from roofseg.metrics import table
from roofseg.models.roof_model import build_model
from roofseg.patches import read_patches
from roofseg.recipe.params import Params, parse_params
from roofseg.studies.runs.scores import tile_scores
from roofseg.studies.runs.subsets import subset
from stages import study, study_recipe
from stages.study_run import study_run

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN = ["a", "b", "e", "f"]
SPLIT = {**dict.fromkeys(TRAIN, "train"), "c": "val", "d": "val", "t": "test"}
OUT = Path("metrics/studies/runs/budget/small-2-5.json")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    make(write_dataset(folder / "data", SPLIT), folder / "patches")
    return folder / "patches"


@pytest.fixture
def params(tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of a project, the current folder, that is ready to train; without test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROOFSEG_STATE_DIR", raising=False)
    for split in ("train", "val"):
        shutil.copytree(tiles / split, Path("patches") / split)
    write_weights(Path("weights/scratch.safetensors"), {})
    Path("params.yaml").write_text(PARAMS)
    return parse_params(PARAMS)


class PulledPlugError(Exception):
    pass


class Break(Callback):
    """Ends a run after its first epoch, as a pruned trial or a pulled plug does."""

    def on_train_epoch_start(self, trainer: object, pl_module: object) -> None:
        if trainer.current_epoch == 1:
            raise PulledPlugError


def test_a_run_is_a_record_of_its_subset_and_its_counts(params: Params) -> None:
    recipe = params.recipe("small").model_copy(update={"seed": 5})
    record = study_run(
        recipe,
        study="budget",
        attempt="small",
        params=params,
        out=OUT,
        tiles=2,
        note=lambda: {"at": 3},
    )
    assert record == read_json(OUT)
    assert record["train_tiles"] == subset(TRAIN, 2, 5)
    assert (record["study"], record["attempt"], record["at"]) == ("budget", "small", 3)
    assert record["recipe"] == recipe.model_dump(mode="json")
    assert [row["tile"] for row in record["val"]] == ["c", "d"]
    assert [sum(row[key] for key in ("tp", "fp", "fn", "tn")) for row in record["val"]] == [
        64**2
    ] * 2
    ious = [row["tp"] / (row["tp"] + row["fp"] + row["fn"]) for row in record["val"]]
    assert record["val_iou"] == pytest.approx(np.mean(ious))
    assert not list(Path(".state").iterdir())
    assert sorted(path.name for path in Path().iterdir()) == [
        *(".state", "metrics", "params.yaml", "patches", "weights")
    ]


def test_other_tiles_are_no_part_of_it(params: Params) -> None:
    """What a model learns is the same when all training tiles but those of its subset change."""
    recipe = params.recipe("small").model_copy(update={"epochs": 1})
    asked = {"study": "budget", "attempt": "small", "params": params, "tiles": 2}
    before = study_run(recipe, **asked)
    masks = Path("patches/train/masks")
    one, *others = sorted(set(TRAIN) - set(before["train_tiles"]))
    shutil.copy(masks / f"{before['train_tiles'][0]}.png", masks / f"{one}.png")
    after = study_run(recipe, **asked)
    assert after["val"] == before["val"]
    shutil.copy(masks / f"{others[0]}.png", masks / f"{before['train_tiles'][0]}.png")
    assert study_run(recipe, **asked)["val"] != before["val"]


def test_a_run_that_failed_resumes_to_the_same_bytes(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = params.recipe("small")
    asked = {"study": "seeds", "attempt": "small", "params": params}
    study_run(recipe, **asked, out=Path("whole.json"))
    with pytest.raises(PulledPlugError):
        study_run(recipe, **asked, out=Path("broken.json"), callbacks=[Break()])
    assert not Path("broken.json").exists()
    assert [path.name.partition("@")[0] for path in Path(".state").glob("*@*/")] == ["seeds-small"]
    capsys.readouterr()
    study_run(recipe, **asked, out=Path("broken.json"))
    assert "resumes after epoch 1" in capsys.readouterr().out
    assert Path("broken.json").read_bytes() == Path("whole.json").read_bytes()
    assert not list(Path(".state").glob("*@*/"))


def test_the_stage_takes_all_but_seed_and_preset_from_its_recipe(
    params: Params, say: object, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("studies").mkdir()
    text = (Path(study.__file__).parent.parent / "tests/studies_tiny.yaml").read_text()
    Path("studies/studies.yaml").write_text(text)
    say(study_recipe, "cold")
    made = Path("studies/recipes/cold")
    assert json.loads((made / "studies.json").read_text()) == ["augmentation"]
    say(
        study,
        *(made / "augmentation.json", "--seed", 7, "--preset", "heavy", "--out", "heavy.json"),
    )
    record = read_json(Path("heavy.json"))
    expected = read_json(made / "augmentation.json")["recipe"]
    assert record["recipe"] == {**expected, "seed": 7, "augmentation": "heavy"}
    assert record["train_tiles"] == TRAIN
    assert "augmentation: heavy: val IoU" in capsys.readouterr().out

    write_json(
        made / "augmentation.json", {**read_json(made / "augmentation.json"), "prior_sha256": ""}
    )
    with pytest.raises(Exception, match=r"not the file that .* Run `dvc repro studies/dvc\.yaml:r"):
        say(study, made / "augmentation.json", "--seed", 7, "--out", "again.json")
    assert not Path("again.json").exists()


@pytest.mark.parametrize("seed", ["-1", str(2**32), "one"])
def test_a_seed_that_is_none_is_named(
    seed: str, say: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        say(study, "recipe.json", f"--seed={seed}", "--out", "out.json")
    assert ended.value.code == 2
    assert re.search(rf"argument --seed: .*{seed}", capsys.readouterr().err)


def test_tiles_are_scored_as_evaluate_scores_them(tiles: Path) -> None:
    patches = read_patches(tiles / "train")
    model = build_model("unet", "tu-mobilenetv3_small_050", dropout=0.0, patch_size=64)
    probabilities = predict(
        model, [patch.image for patch in patches], device="cpu", batch_size=len(patches)
    )
    truth = np.stack([patch.mask for patch in patches])
    expected = table([patch.tile for patch in patches], probabilities, truth)
    assert tile_scores(model, patches, "cpu").equals(expected)
