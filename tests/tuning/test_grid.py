"""Grids, budgets and the settings that DVC is given."""

from __future__ import annotations

import re
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
from roofseg.recipe.params import Recipe, parse_params
from roofseg.tuning.grid import Run, budget, parse_tuning, search_name, settings, spaces

TUNING = """\
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


def identity(recipe: Recipe) -> str:
    return digest(recipe, PARAMETERS, {}, {})


def read(text: str, **changes: str) -> dict[str, list[Run]]:
    for old, new in changes.items():
        text = re.sub(rf"(?m)^( *){old}:.*$", rf"\g<1>{new}", text, count=1)
    return spaces(parse_tuning(text), PARAMETERS, identity=identity)


def test_a_grid_has_every_combination_once() -> None:
    found = read(TUNING)
    assert {name: len(space) for name, space in found.items()} == {"small": 6, "smaller": 4}
    assert len({run.name for space in found.values() for run in space}) == 10
    assert {(run.values["lr"], run.values["augmentation"]) for run in found["small"]} == {
        (lr, preset) for lr in (0.001, 0.00001, 0.3) for preset in ("light", "heavy")
    }
    assert all(run.overrides == {"epochs": 1, **run.values} for run in found["small"])


def test_every_attempt_gets_the_same_number_of_runs_in_turns() -> None:
    chosen = budget(read(TUNING), 3)
    assert [run.attempt for run in chosen] == ["small", "smaller"] * 3
    assert len({run.name for run in chosen}) == 6


def test_a_larger_budget_goes_on_from_a_smaller_one() -> None:
    assert budget(read(TUNING), 2) == budget(read(TUNING, runs="runs: 4"), 4)[:4]


def test_another_seed_takes_other_runs() -> None:
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
    """As long as the budget is no more than the longest list of values, none comes needlessly."""
    keys = dict(zip(["lr", "dropout", "bce_weight"], sizes, strict=False))
    lists = {key: [round(0.1 * (n + 1), 1) for n in range(size)] for key, size in keys.items()}
    runs = data.draw(st.integers(1, max(sizes)))
    text = f"seed: {seed}\nruns: {runs}\nattempts:\n  small: {lists}\n".replace("'", "")
    chosen = read(text)["small"][:runs]
    for key, size in keys.items():
        used = Counter(run.values[key] for run in chosen)
        assert len(used) == min(size, runs)


@pytest.mark.parametrize("seed", [1, 10, 42])
def test_a_sample_of_a_large_grid_takes_all_values_of_a_key_about_equally_often(seed: int) -> None:
    """As 24 of the 144 recipes of studies/profiles/inria."""
    values = {name: [round(0.1 * (n + 1), 1) for n in range(4)] for name in ("lr", "weight_decay")}
    values |= {name: [0.2, 0.5, 0.8] for name in ("dropout", "bce_weight")}
    text = f"seed: {seed}\nruns: 24\nattempts:\n  small: {values}\n".replace("'", "")
    chosen = read(text)["small"][:24]
    for key, each in values.items():
        used = Counter(run.values[key] for run in chosen)
        assert used.keys() == set(each)
        assert max(used.values()) - min(used.values()) <= 2


def test_a_search_is_known_by_its_grid() -> None:
    found = read(TUNING)
    name = search_name(found["small"])
    assert name.startswith("small ")
    assert search_name(found["small"][::-1]) == name
    assert search_name(read(TUNING, seed="seed: 9", runs="runs: 2")["small"]) == name
    assert search_name(read(TUNING, lr="lr: [0.001, 0.3]")["small"]) != name


def test_the_name_is_that_of_the_recipe() -> None:
    """Whatever is in force for a tuned key, the run is the same; any other key is another run."""
    before = [run.name for run in read(TUNING)["small"]]

    def names(params: str) -> list[str]:
        return [
            run.name
            for run in spaces(parse_tuning(TUNING), parse_params(params), identity=identity)[
                "small"
            ]
        ]

    assert names(PARAMS.replace("lr: 0.001\n", "lr: 0.02\n")) == before
    assert not set(names(PARAMS.replace("weight_decay: 0.0001", "weight_decay: 0.1"))) & set(before)
    assert all(re.fullmatch(r"tune-small-[0-9a-f]{12}", name) for name in before)


def test_settings_reach_the_attempt(tmp_path: Path) -> None:
    """As DVC writes them, whether the attempt has the key or not, they give the run's recipe."""
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
        ({"runs": "runs: 5"}, "runs: found 5, but the grid of smaller has only 4"),
        ({"runs": "runs: 0"}, "runs: found 0"),
        ({"runs": "rums: 3"}, "rums: unknown key"),
        ({"lr": "lrr: [0.1]"}, "attempts.small.lrr: no key of a recipe. Known: seed, epochs"),
        ({"lr": "seed: [1, 2]"}, "attempts.small.seed: a seed is not for tuning"),
        ({"epochs": "epoch: 1"}, "common.epoch: no key of a recipe. Known: seed, epochs"),
        ({"epochs": "seed: 1"}, "common.seed: a seed is not for tuning"),
        (
            {"lr": "lr: [0.1, '0.1']"},
            "attempts.small: {'lr': '0.1', 'augmentation': 'light'} and {'lr': 0.1, "
            "'augmentation': 'light'} are the same recipe",
        ),
        ({"lr": "lr: [0.1, 7]"}, "attempts.small.lr: found 7; Input should be less than 1"),
        ({"lr": "lr: [0.1, 0.1]"}, "attempts.small.lr: expected each only once, found 0.1 twice"),
        ({"lr": "lr: []"}, "attempts.small.lr: "),
        ({"lr": "lr: 0.1"}, "attempts.small.lr: found 0.1; "),
        ({"lr": "epochs: [2, 3]"}, "attempts.small.epochs: in the grid and in common"),
        ({"epochs": "epochs: 0"}, "common.epochs: found 0"),
        (
            {"epochs": "freeze_epochs: 3"},
            "common: freeze_epochs of attempt small is 3, not less than its epochs (2)",
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
def test_what_cannot_be_tuned_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(TUNING, **changes)
    assert str(caught.value).startswith(f"studies/tuning.yaml: {says}")


def test_the_grid_may_set_right_what_common_alone_would_not_be() -> None:
    text = """\
seed: 1
runs: 2
common: {freeze_epochs: 3}
attempts:
  small:
    epochs: [4, 5]
"""
    assert len(read(text)["small"]) == 2


@pytest.mark.parametrize("profile", ["sample", "inria", "austin512"])
def test_every_profile_has_a_tuning_that_suits_it(profile: str) -> None:
    params = parse_params((ROOT / "profiles" / f"{profile}.yaml").read_text())
    tuning = parse_tuning((ROOT / "studies/profiles" / profile / "tuning.yaml").read_text())
    for attempt, grid in tuning.attempts.items():
        assert {"lr", "augmentation", "dropout", "bce_weight"} == grid.keys()
        largest = tuning.model_copy(update={"runs": 144, "attempts": {attempt: grid}})
        assert len(spaces(largest, params, identity=str)[attempt]) == 144
    assert {"unet_imagenet", "deeplabv3plus_imagenet"} <= tuning.attempts.keys()
