"""Grids, the names of their runs, and the settings that DVC is given."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from graph import ROOT
from hypothesis import given
from hypothesis import strategies as st
from project import PARAMS

from roofseg.core.errors import UserError
from roofseg.recipe.digest import digest
from roofseg.recipe.params import Recipe
from roofseg.recipe.parsing import parse_params
from roofseg.studies.declaration import parse
from roofseg.tuning.grid import (
    SOURCE,
    Run,
    Tuning,
    build_spaces,
    hash_training_code,
    read_tuning,
    settings,
)

TUNING = """\
sampler: grid
seed: 1
runs: 3
common:
  epochs: 1
attempts:
  small:
    lr: [0.001, 1e-05, 0.3]
    augmentation: [light, heavy]
  smaller:
    lr: [0.001, 0.0003]
    dropout: [0.0, 0.5]
"""
PARAMETERS = parse_params(PARAMS)


def identify(recipe: Recipe) -> str:
    return digest(recipe, PARAMETERS, {}, {})


def read(text: str, **changes: str) -> dict[str, list[Run]]:
    for old, new in changes.items():
        text = re.sub(rf"(?m)^( *){old}:.*$", rf"\g<1>{new}", text, count=1)
    return build_spaces(parse(text, Tuning, SOURCE), PARAMETERS, identify=identify)


def test_a_grid_has_every_combination_once() -> None:
    found = read(TUNING)
    assert {name: len(space) for name, space in found.items()} == {"small": 6, "smaller": 4}
    assert len({run.name for space in found.values() for run in space}) == 10
    assert {(run.values["lr"], run.values["augmentation"]) for run in found["small"]} == {
        (lr, preset) for lr in (0.001, 0.00001, 0.3) for preset in ("light", "heavy")
    }
    assert all(run.overrides == {"epochs": 1, **run.values} for run in found["small"])


def test_the_rank_of_lora_can_be_tuned() -> None:
    vit = PARAMS.replace("architecture: unet", "architecture: vit_conv")
    params = parse_params(vit.replace("tu-mobilenetv3_small_050", "mobile_sam", 1))
    text = TUNING.partition("  smaller:")[0].replace("lr: [0.001, 1e-05, 0.3]", "lora_rank: [4, 8]")
    tuning = parse(text, Tuning, SOURCE)
    space = build_spaces(tuning, params, identify=identify)["small"]
    assert {(run.values["lora_rank"], run.values["augmentation"]) for run in space} == {
        (rank, preset) for rank in (4, 8) for preset in ("light", "heavy")
    }
    assert "+attempts.small.lora_rank=4" in {s for run in space for s in settings(run, params)}


def test_the_number_of_runs_does_not_change_their_order() -> None:
    assert read(TUNING) == read(TUNING, runs="runs: 4")


def test_another_seed_gives_another_order() -> None:
    orders = {
        tuple(run.name for run in read(TUNING, seed=f"seed: {seed}")["small"]) for seed in range(9)
    }
    assert len(orders) > 1


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_a_sample_takes_all_values_of_a_key_equally_often(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    """With at most as many runs as the longest list has values, none of these is used twice."""
    keys = dict(zip(["lr", "dropout", "bce_weight"], sizes, strict=False))
    lists = {key: [round(0.1 * (n + 1), 1) for n in range(size)] for key, size in keys.items()}
    runs = data.draw(st.integers(1, max(sizes)))
    text = f"sampler: grid\nseed: {seed}\nruns: {runs}\nattempts:\n  small: {lists}\n".replace(
        "'", ""
    )
    chosen = read(text)["small"][:runs]
    for key, size in keys.items():
        used = Counter(run.values[key] for run in chosen)
        assert len(used) == min(size, runs)


@pytest.mark.whole
@pytest.mark.parametrize("seed", [1, 10, 42])
def test_a_sample_of_a_large_grid_takes_all_values_of_a_key_about_equally_often(seed: int) -> None:
    """With sizes like those of studies/profiles/inria: 24 of 144 recipes."""
    values = {name: [round(0.1 * (n + 1), 1) for n in range(4)] for name in ("lr", "weight_decay")}
    values |= {name: [0.2, 0.5, 0.8] for name in ("dropout", "bce_weight")}
    text = f"sampler: grid\nseed: {seed}\nruns: 24\nattempts:\n  small: {values}\n".replace("'", "")
    chosen = read(text)["small"][:24]
    for key, each in values.items():
        used = Counter(run.values[key] for run in chosen)
        assert used.keys() == set(each)
        assert max(used.values()) - min(used.values()) <= 2


def test_a_run_is_named_by_its_recipe() -> None:
    """The name depends on all keys except a tuned key's value in params.yaml."""
    before = [run.name for run in read(TUNING)["small"]]
    tuning = parse(TUNING, Tuning, SOURCE)

    def names(params: str) -> list[str]:
        return [
            run.name
            for run in build_spaces(tuning, parse_params(params), identify=identify)["small"]
        ]

    assert names(PARAMS.replace("lr: 0.001\n", "lr: 0.02\n")) == before
    assert not set(names(PARAMS.replace("weight_decay: 0.0001", "weight_decay: 0.1"))) & set(before)
    assert all(re.fullmatch(r"tune-small-[0-9a-f]{12}", name) for name in before)


def test_settings_change_the_attempt_alone(tmp_path: Path) -> None:
    """With them DVC writes the run's recipe, whether or not the attempt had the key."""
    for runs in read(TUNING).values():
        for run in runs:
            path = tmp_path / "params.yaml"
            path.write_text(PARAMS)
            apply_overrides(str(path), settings(run, PARAMETERS))
            params = parse_params(path.read_text())
            recipe = params.recipe(run.attempt)
            assert {key: getattr(recipe, key) for key in run.overrides} == run.overrides
            other = "small" if run.attempt == "smaller" else "smaller"
            assert params.recipe(other) == PARAMETERS.recipe(other)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runs": "runs: 5"}, "runs: found 5, but the grid of smaller has only 4 recipes"),
        (
            {"sampler": "sampler: optuna"},
            "sampler: found 'optuna'; Input should be 'grid' or 'tpe'",
        ),
        ({"sampler": ""}, "sampler: missing; compare with the complete files"),
        ({"runs": "runs: 0"}, "runs: found 0"),
        (
            {"runs": "rums: 3"},
            "rums: unknown key (misspelt?). The known keys are: sampler, seed, runs, common, "
            "attempts",
        ),
        ({"lr": "lrr: [0.1]"}, "attempts.small.lrr: not a recipe key. Known: seed, epochs"),
        ({"lr": "seed: [1, 2]"}, "attempts.small.seed: the seed cannot be tuned"),
        ({"epochs": "epoch: 1"}, "common.epoch: not a recipe key. Known: seed, epochs"),
        ({"epochs": "seed: 1"}, "common.seed: the seed cannot be tuned"),
        (
            {"lr": "lr: [0.1, '0.1']"},
            "attempts.small: {'lr': '0.1', 'augmentation': 'light'} and {'lr': 0.1, "
            "'augmentation': 'light'} are the same recipe",
        ),
        ({"lr": "lr: [0.1, 7]"}, "attempts.small.lr: found 7; Input should be less than 1"),
        ({"lr": "lr: [0.1, 0.1]"}, "attempts.small.lr: expected different values, found 0.1 twice"),
        ({"lr": "lr: []"}, "attempts.small.lr: "),
        ({"lr": "lr: 0.1"}, "attempts.small.lr: found 0.1; "),
        ({"lr": "epochs: [2, 3]"}, "attempts.small.epochs: also in common"),
        ({"epochs": "epochs: 0"}, "common.epochs: found 0"),
        (
            {"epochs": "freeze_epochs: 3"},
            "freeze_epochs of attempt small is 3, not less than its epochs (2)",
        ),
        (
            {"epochs": "freeze_epochs: 3", "lr": "epochs: [4, 3]"},
            "freeze_epochs of attempt small is 3, not less than its epochs (3)",
        ),
        (
            {
                "lr": "lr: [0.1, 0.2, 0.3]",
                "augmentation": f"dropout: {[n / 999 for n in range(667)]}",
            },
            "attempts.small: found a grid of 2001 recipes; expected at most 2000",
        ),
        ({"small": "tiny:"}, "attempts.tiny: no such attempt; params.yaml has: small, smaller"),
        ({"augmentation": "augmentation: [blur]"}, "attempts.small.augmentation: found 'blur'"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_key(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(TUNING, **changes)
    assert str(caught.value).startswith(f"studies/tuning.yaml: {says}")


def test_common_need_not_fit_the_recipe_without_the_grid() -> None:
    text = """\
sampler: grid
seed: 1
runs: 2
common: {freeze_epochs: 3}
attempts:
  small:
    epochs: [4, 5]
"""
    assert len(read(text)["small"]) == 2


@pytest.mark.whole
@pytest.mark.parametrize("profile", ["sample", "inria", "austin512"])
def test_every_profile_has_a_tuning_file_that_fits_it(profile: str) -> None:
    params = parse_params((ROOT / "profiles" / f"{profile}.yaml").read_text())
    path = ROOT / "studies/profiles" / profile / "tuning.yaml"
    tuning = parse(path.read_text(), Tuning, str(path))
    for attempt, grid in tuning.attempts.items():
        assert {"lr", "augmentation", "dropout", "bce_weight"} == grid.keys()
        largest = tuning.model_copy(update={"runs": 144, "attempts": {attempt: grid}})
        assert len(build_spaces(largest, params, identify=str)[attempt]) == 144
    assert {"unet_imagenet", "deeplabv3plus_imagenet"} <= tuning.attempts.keys()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A project whose stage train lists a folder of code, a file of code, and a folder of data."""
    for name in ("src/models/unet.py", "src/train/loss.py", "src/train/deep/er.py", "stages/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {Path(name).name}")
    deps = ["patches/train", "weights/${item.prior}.safetensors"]
    deps += ["src/train", "src/models", "stages/a.py"]
    (tmp_path / "dvc.yaml").write_text(f"stages: {{train: {{do: {{deps: {deps}}}}}}}")
    return tmp_path


def test_a_change_of_the_training_code_changes_its_hash(code: Path) -> None:
    hashes = [hash_training_code(code / "dvc.yaml")]
    for old, new in (
        ("src/train/loss.py", "src/models/loss.py"),  # the same bytes in another folder
        ("src/train/deep/er.py", None),
        ("stages/a.py", None),
        ("src/models/unet.py", None),
    ):
        if new:
            (code / old).rename(code / new)
        else:
            (code / old).write_text("changed")
        hashes.append(hash_training_code(code / "dvc.yaml"))
    assert len(set(hashes)) == 5


def test_only_training_code_counts(code: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = hash_training_code(code / "dvc.yaml")
    for name in ("src/report/page.py", "patches/train/a.py", "src/train/__pycache__/loss.pyc"):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text("new")
    assert hash_training_code(code / "dvc.yaml") == before
    elsewhere = tmp_path_factory.mktemp("clone") / "project"
    shutil.copytree(code, elsewhere)
    assert hash_training_code(elsewhere / "dvc.yaml") == before


def test_the_pipeline_lists_training_code_that_is_hashed(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "src", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    before = hash_training_code(tmp_path / "dvc.yaml")
    (tmp_path / "src").unlink()
    shutil.copytree(ROOT / "src", tmp_path / "src")
    assert hash_training_code(tmp_path / "dvc.yaml") == before
    loss = tmp_path / "src/roofseg/training/loss.py"
    loss.write_text(loss.read_text() + "\n# changed\n")
    assert hash_training_code(tmp_path / "dvc.yaml") != before


def test_a_missing_file_is_named_with_where_to_copy_one_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tuning\.yaml: cannot be read .*studies/profiles/"):
        read_tuning(
            tmp_path / "tuning.yaml", PARAMETERS, dataset=tmp_path, pipeline=ROOT / "dvc.yaml"
        )
