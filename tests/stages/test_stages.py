"""The small entry points, and the code that all share; test_pipeline.py has the whole pipeline.

Most run in this process: `main` is what `python -m` runs. The exit status, and that a smoke run
writes nothing, are seen from outside.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from graph import ROOT
from project import PARAMS
from ruamel.yaml import YAML
from tiers import cases
from tiny_dataset import SPLIT, make, write_dataset
from unwritable import full_disk

from roofseg.core.entry_point import system_errors_explained
from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file, write_json
from roofseg.priors.catalogue import make_prior
from roofseg.recipe.digest import attempt_digest
from roofseg.recipe.parsing import read_params
from stages import (
    check_params,
    make_patches,
    run,
    train,
)

SAMPLE = (ROOT / "profiles" / "sample.yaml").read_text()


pytestmark = pytest.mark.usefixtures("one_thread")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stage(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m stages.NAME`` in ``cwd``, with this checkout's stages."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that is the current folder, outside any git repository."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


# stages/__init__.py


@pytest.mark.usefixtures("here")
def test_a_user_error_is_one_message_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("params.yaml: lr: found 7; expected less than 1")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: params.yaml: lr: found 7; expected less than 1\n"


@pytest.mark.usefixtures("here")
def test_a_bug_keeps_its_traceback_and_success_its_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(lambda: print("done"))
    assert capsys.readouterr().out == "done\n"
    with pytest.raises(ZeroDivisionError):
        run(lambda: print(1 / 0))


@pytest.mark.whole
def test_status_two_without_traceback_from_outside(here: Path) -> None:
    done = stage("check_params", cwd=here)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml: cannot be read")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "stages.check_params",
        "stages.train --attempt small",
        "stages.evaluate --attempt small",
        "stages.study_run seeds small-1 --attempt small --seed 1",
        "roofseg train-all",
    ],
)
def test_a_misspelt_key_is_told_before_torch_is_imported(checked: Path, command: str) -> None:
    """Torch takes seconds, so that a typing error would be told late."""
    recipe = read_params(Path("params.yaml")).recipe("small").model_dump(mode="json")
    write_json(Path("studies/recipes/small/seeds.json"), {"recipe": recipe})
    Path("dvc.yaml").touch()
    Path("params.yaml").write_text(PARAMS.replace("batch_size:", "batchsize:"))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *command.split()],
        env=environment,
        capture_output=True,
        text=True,
    )
    imported = re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.MULTILINE)
    assert done.returncode == 2
    assert "\nerror: params.yaml: batchsize: unknown key" in done.stderr
    assert "pydantic" in imported
    assert not {"torch", "lightning", "albumentations"} & set(imported)


def test_parameters_that_cannot_be_read(here: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: cannot be read .*roofseg profile"):
        read_params(Path("params.yaml"))
    (here / "params.yaml").write_bytes(b"lr: \xff\n")
    with pytest.raises(UserError, match=r"params\.yaml: cannot be read"):
        read_params(Path("params.yaml"))
    (here / "params.yaml").write_text("lr: 1\n")
    with pytest.raises(UserError, match=r"^params\.yaml: lr: found 1"):
        read_params(Path("params.yaml"))


# check_params


@pytest.fixture
def checked(here: Path) -> Path:
    """A project with the tests' parameters and a dataset that passes."""
    (here / "params.yaml").write_text(PARAMS)
    write_dataset(here / "data" / "tiny", SPLIT)
    return here


@pytest.mark.parametrize("kind", ["folder", "dvc", "stage"])
def test_tiles_may_be_present_or_come_from_dvc(checked: Path, call_main: object, kind: str) -> None:
    tiles = [Path("data/tiny/imgs"), Path("data/tiny/msks")]
    if kind != "folder":
        for folder in tiles:
            shutil.rmtree(folder)
    if kind == "dvc":
        for folder in tiles:
            Path(f"{folder}.dvc").touch()
    if kind == "stage":
        made = {"outs": [*map(str, tiles)], "cmd": "true", "wdir": ".."}
        with Path("data/dvc.yaml").open("w") as file:
            YAML().dump({"stages": {"tiny": made}}, file)
    call_main(check_params)
    assert Path("metrics/params_check.json").is_file()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda: Path("data/tiny").rename("data/tinny"),
            r"dataset: found 'tiny', .* data/ has: tinny$",
        ),
        (lambda: shutil.rmtree("data"), r"dataset: found 'tiny', .* data/ has: none$"),
        (lambda: Path("data/tiny/split.csv").write_text("tile\n"), r"split\.csv: .* lacks split"),
        (lambda: Path("data/tiny/nudges.csv").unlink(), r"nudges\.csv: no such file"),
        (lambda: Path("data/tiny/LICENSE.md").unlink(), r"LICENSE\.md: no such file; .*who made"),
        (lambda: shutil.rmtree("data/tiny/msks"), r"^data/tiny/msks: no such .*`dvc add data/tiny"),
    ],
)
def test_a_missing_dataset_is_named(
    checked: Path, call_main: object, spoil: object, says: str
) -> None:
    spoil()
    with pytest.raises(UserError, match=says):
        call_main(check_params)
    assert not Path("metrics").exists()


@pytest.mark.parametrize(
    "name",
    cases(["sample", "inria", "austin512", "beyond"], whole=["inria", "austin512", "beyond"]),
)
def test_every_model_of_a_profile_can_be_built(name: str) -> None:
    check_params.check_models(read_params(ROOT / "profiles" / f"{name}.yaml"))


def test_a_model_that_cannot_be_built_is_named_with_its_attempt(
    checked: Path, call_main: object
) -> None:
    head, attempt, rest = PARAMS.partition("  smaller:\n")
    rest = rest.replace("tu-mobilenetv3_small_050", "densenet121")
    Path("params.yaml").write_text(head + attempt + rest)
    with pytest.raises(UserError, match=r"attempts\.smaller\.encoder: .*'densenet121', which Deep"):
        call_main(check_params)


def test_layers_that_lora_does_not_find_are_named_with_their_attempt(
    checked: Path, call_main: object
) -> None:
    keys = "architecture: vit_conv\n    lora_rank: 4\n    lora_targets: [q]"
    text = PARAMS.replace("architecture: unet", keys)
    text = text.replace("encoder: tu-mobilenetv3_small_050", "encoder: mobile_sam", 1)
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^params\.yaml: attempts\.small\.lora_targets: found 'q'"):
        call_main(check_params)


def test_a_folder_that_cannot_be_written_is_named(checked: Path, call_main: object) -> None:
    Path("metrics").touch()
    with (
        pytest.raises(UserError, match=r"^metrics: File exists\. Move away"),
        system_errors_explained(),
    ):
        call_main(check_params)


# make_patches and train


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is ready to train: tiny patches, an empty prior, the tests' parameters."""
    folder = tmp_path_factory.mktemp("project")
    make(write_dataset(folder / "data" / "tiny", SPLIT), folder / "patches")
    shutil.rmtree(folder / "patches" / "test")  # training does not need it
    make_prior("scratch", folder / "weights")
    (folder / "params.yaml").write_text(PARAMS)
    return folder


@pytest.fixture
def project(cut: Path, here: Path) -> Path:
    shutil.copytree(cut, here, dirs_exist_ok=True)
    return here


def test_on_a_full_disk_the_patches_stay_as_they_were(project: Path, call_main: object) -> None:
    before = contents(project)
    full = pytest.raises(UserError, match=r"^patches/.*: File too large\. Raise the limit")
    with full_disk(1000), full, system_errors_explained():
        call_main(make_patches)
    assert contents(project) == before


@pytest.mark.whole
def test_a_smoke_run_writes_nothing(project: Path) -> None:
    (project / "models" / "small").mkdir(parents=True)
    (project / "models" / "small" / "model.safetensors").write_text("dear")
    before = contents(project)
    done = stage("train", "--attempt", "small", "--smoke", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "small  epoch 2/2" in done.stdout
    assert "n 4, 2 steps of 2" in done.stdout
    assert contents(project) == before


@pytest.mark.whole
def test_train_writes_model_recipe_and_results(
    project: Path, call_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    call_main(train, "--attempt", "small")
    last = capsys.readouterr().out.splitlines()[-1]
    score = re.match(
        r"small  finished in 0\.\d minutes: val IoU (0\.\d{4}), the best, after ep", last
    )
    record = json.loads((project / "models/small/recipe.json").read_text())["result"]
    assert score
    assert float(score[1]) == pytest.approx(record["best_val_iou"], abs=1e-4)
    assert last.endswith(f"epoch {record['best_epoch']} of 2")
    made = sorted(
        {
            name
            for name in contents(project)
            if not name.startswith(("data/", "patches/", ".state/", "dvc.yaml"))
        }
    )
    curves = [f"plots/metrics/{name}.tsv" for name in ("lr", "train/loss", "val/f1", "val/iou")]
    metrics = "metrics/attempts/small"
    assert made == sorted(
        [
            "params.yaml",
            "weights/scratch.json",
            "weights/scratch.safetensors",
            "models/small/model.safetensors",
            "models/small/recipe.json",
            "models/small/tiles.csv",
            f"{metrics}/training.json",
            f"{metrics}/times.json",
            f"{metrics}/live/metrics.json",
            f"{metrics}/live/plots/metrics/val/loss.tsv",
            *(f"{metrics}/live/{name}" for name in curves),
            "plots/training/small/epoch_001.png",
            "plots/training/small/epoch_002.png",
        ]
    )
    record = read_json(Path("models/small/recipe.json"))
    params = read_params(Path("params.yaml"))
    assert record == read_json(Path(metrics) / "training.json")
    assert record["digest"] == attempt_digest(
        params, "small", dataset=Path("data") / params.dataset
    )
    assert record["recipe"] == json.loads(params.recipe("small").model_dump_json())
    assert record["gsd"] == [0.3]
    assert record["result"]["epochs_run"] == 2
    assert re.fullmatch("[0-9a-f]{64}", record["training_inputs"])
    times = read_json(Path(metrics) / "times.json")
    assert set(times) == {"minutes", "seconds_per_epoch", "peak_memory_gb"}
    # A second run gives the same bytes, except for the times.
    before = {name: sha256_file(Path(name)) for name in made if not name.endswith("times.json")}
    call_main(train, "--attempt", "small")
    assert {name: sha256_file(Path(name)) for name in before} == before


@pytest.mark.whole
def test_a_run_that_ends_early_keeps_its_best_weights_and_says_so(
    project: Path, call_main: object, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PARAMS.replace("freeze_epochs: 0", "freeze_epochs: 1").replace(
        "encoder_lr_factor: 1.0", "encoder_lr_factor: 1e30"
    )
    (project / "params.yaml").write_text(text)
    with pytest.raises(SystemExit) as caught:
        run(lambda: call_main(train, "--attempt", "small"))
    assert caught.value.code == 2
    assert re.search(r"^error: the .* at epoch 2, step \d", capsys.readouterr().err, re.MULTILINE)
    assert read_json(Path("models/small/recipe.json"))["result"]["best_epoch"] == 1
    assert Path("models/small/model.safetensors").is_file()
    # A smoke run says so too.
    with pytest.raises(UserError, match=r"at epoch 2, step \d"):
        call_main(train, "--attempt", "small", "--smoke")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda: Path("params.yaml").write_text(PARAMS.replace("small:", "big:")), "'small'"),
        (lambda: shutil.rmtree("patches/val"), r"patches/val/crops\.csv: no such file"),
        (lambda: Path("weights/scratch.safetensors").unlink(), r"scratch\.safetensors: no such"),
    ],
)
def test_an_attempt_that_cannot_be_trained_is_an_error_and_writes_no_model(
    project: Path, call_main: object, spoil: object, says: str
) -> None:
    spoil()
    with pytest.raises(UserError, match=says):
        call_main(train, "--attempt", "small")
    assert not Path("models").exists()
