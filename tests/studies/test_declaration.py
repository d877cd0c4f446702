"""studies.yaml: what it may contain, and the message of every error in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph import ROOT
from project import PARAMS

from roofseg.core.errors import UserError
from roofseg.recipe.params import Recipe
from roofseg.recipe.parsing import parse_params
from roofseg.studies.declaration import overridden, parse_studies, with_attempts

STUDIES = """\
attempts:
  cold:
    architecture: unet
    encoder: tu-mobilenetv3_small_050
    prior: scratch
    freeze_epochs: all
studies:
  budget:
    attempts: [small, smaller]
    tiles: [1, 2]
    seeds: [1, 2]
    overrides: {epochs: 3}
  seeds:
    attempts: [small, smaller]
    seeds: [1, 2]
  augmentation:
    attempts: [small, cold]
    presets: [light, heavy]
    seeds: [7]
    frozen: [cold]
    unfrozen: small
    mild: [light]
    strong: [heavy]
  folds:
    attempts: [small, smaller]
    folds: 3
    seed: 1
"""
TINY = parse_params(PARAMS)


def test_the_runs_of_a_study_are_the_product_of_its_axes() -> None:
    studies = parse_studies(STUDIES, TINY)
    assert {name: len(study.runs()) for name, study in studies.by_name().items()} == {
        "budget": 8,
        "seeds": 4,
        "augmentation": 4,
        "folds": 6,
    }
    assert list(studies.study("budget").runs())[:3] == ["small-1-1", "small-1-2", "small-2-1"]
    assert studies.study("augmentation").runs()["cold-heavy-7"] == {
        "attempt": "cold",
        "augmentation": "heavy",
        "seed": 7,
    }
    assert studies.study("folds").runs()["small-2"] == {"attempt": "small", "fold": 2}


def test_a_run_has_the_recipe_of_its_attempt_with_overrides_and_axis_values() -> None:
    studies = parse_studies(STUDIES, TINY)
    every = with_attempts(TINY, studies.attempts, source="here")
    budget, augmentation = studies.study("budget"), studies.study("augmentation")
    own = budget.recipe(every, budget.runs()["smaller-1-2"])
    assert own == TINY.recipe("smaller").model_copy(update={"epochs": 3, "seed": 2})
    other = augmentation.recipe(every, augmentation.runs()["cold-heavy-7"])
    assert (other.augmentation, other.seed, other.freeze_epochs) == ("heavy", 7, "all")


def test_other_differences_of_frozen_attempts_are_named() -> None:
    studies = parse_studies(STUDIES, TINY)
    every = with_attempts(TINY, studies.attempts, source="here")
    assert studies.studies.augmentation.other_differences(every) == {"cold": []}
    text = STUDIES.replace("all\n", "all\n    architecture: deeplabv3plus\n    lr: 0.1\n", 1)
    text = text.replace("    architecture: unet\n", "", 1)
    studies = parse_studies(text, TINY)
    every = with_attempts(TINY, studies.attempts, source="here")
    differences = studies.studies.augmentation.other_differences(every)
    assert differences == {"cold": ["lr", "architecture"]}


@pytest.mark.parametrize("name", ["sample", "austin512", "inria"])
def test_the_studies_of_every_profile_fit_its_parameters(name: str) -> None:
    params = parse_params((ROOT / "profiles" / f"{name}.yaml").read_text())
    text = (ROOT / "studies" / "profiles" / name / "studies.yaml").read_text()
    studies = parse_studies(text, params)
    assert max(studies.studies.budget.tiles) == 24


def test_overrides_replace_keys_and_keep_the_others() -> None:
    recipe = overridden(TINY, "smaller", {"epochs": 7, "lr": 1e-3}, source="here")
    assert (recipe.epochs, recipe.lr, recipe.architecture) == (7, 0.001, "deeplabv3plus")
    assert overridden(TINY, "smaller", {}, source="here") == TINY.recipe("smaller")


def test_attempts_of_studies_join_those_of_the_parameters() -> None:
    block = {"architecture": "unet", "encoder": "tu-mobilenetv3_small_050", "prior": "scratch"}
    every = with_attempts(TINY, {"cold": {**block, "freeze_epochs": "all"}}, source="here")
    assert list(every.attempts) == ["small", "smaller", "cold"]
    assert isinstance(every.recipe("cold"), Recipe)
    assert every.recipe("cold").thaw_epoch is None
    assert every.final["cold"] is None
    assert every.recipe("small") == TINY.recipe("small")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seeds: [7]", "seeds: []", r"augmentation\.seeds: found \[\]; .*at least 1"),
        (
            "seeds: [7]",
            "seeds: [7, 7]",
            r"augmentation\.seeds: expected different.* 7 twice",
        ),
        ("seeds: [7]", "seeds: [-7]", r"augmentation\.seeds\.0: found -7"),
        ("seeds: [7]", "seeds: [true]", r"augmentation\.seeds\.0: found True"),
        ("tiles: [1, 2]", "tiles: [0, 2]", r"budget\.tiles\.0: found 0"),
        (
            "tiles: [1, 2]",
            "tile: [1, 2]",
            r"studies\.budget\.tile: unknown key \(misspelt\?\)\. The known keys are: attempts, "
            r"overrides, seeds, tiles$",
        ),
        ("    tiles: [1, 2]\n", "", r"studies\.budget\.tiles: missing; compare with"),
        (
            "    seeds: [1, 2]\n  aug",
            "    seeds: [1]\n  aug",
            r"seeds\.seeds: expected at least 2, found 1",
        ),
        (
            "folds: 3",
            "folds: 1",
            r"folds\.folds: found 1; expected at least 3: one fold is scored,",
        ),
        ("folds: 3", "folds: many", r"folds\.folds: found 'many'"),
        (
            "smaller]\n    folds",
            "no]\n    folds",
            r"folds\.attempts: found 'no'; .* small, smaller",
        ),
        ("[small, cold]", "[small, gone]", r"'cold' is compared, but is not in attempts"),
        ("presets: [light, heavy]", "presets: [light, loud]", r"presets\.1: found 'loud'"),
        ("mild: [light]", "mild: [medium]", r"'medium' is compared, but is not in presets"),
        ("mild: [light]", "mild: [heavy]", r"'heavy' is both mild and strong"),
        ("unfrozen: small", "unfrozen: cold", r"'cold' is both frozen and unfrozen"),
        ("frozen: [cold]", "frozen: [small]", r"'small' is both frozen and unfrozen"),
        ("unfrozen: small", "unfrozen: gone", r"'gone' is compared, but is not in attempts"),
        ("freeze_epochs: all", "freeze_epochs: 0", r"cold is compared as frozen, .*epochs is 0"),
        ("[small, smaller]\n    tiles", "[small, no]\n    tiles", r"budget\.attempts: found 'no'"),
        ("{epochs: 3}", "{seed: 3}", r"overrides\.seed: the study sets this key for each run"),
        (
            "{epochs: 3}",
            "{prior: scratch}",
            r"overrides\.prior: unknown key\. The known keys are: epochs",
        ),
        ("{epochs: 3}", "{epochs: 0}", r"budget\.overrides: attempts\.small\.epochs: found 0"),
        ("{epochs: 3}", "{epochs: soon}", r"budget\.overrides: .*epochs: found 'soon'"),
        ("{epochs: 3}", "{epochs: 2026-01-01}", r"epochs: found '2026-01-01'"),
        ("{epochs: 3}", "{freeze_epochs: 2}", r"freeze_epochs of attempt small is 2, not less"),
        ("{epochs: 3}", "3", r"budget\.overrides: found 3"),
        (
            "    freeze_epochs",
            "    seed: 3\n    freeze_epochs",
            r"attempts\.cold\.seed: seeds are set by each study",
        ),
        ("  cold:", "  small:", r"attempts\.small: params\.yaml has an attempt of the same"),
        ("prior: scratch", "prior: none", r"attempts\.cold\.prior"),
        (STUDIES.partition("studies:")[0], "", r"attempts: missing; compare with"),
        ("studies:\n", "study:\n", r"study: unknown key.* are: attempts, studies$"),
        ("attempts:\n  cold", "attempts: [\n  cold", r"not valid YAML"),
    ],
)
def test_an_error_names_its_key(old: str, new: str, says: str) -> None:
    assert old in STUDIES
    with pytest.raises(UserError, match=rf"(?s)^studies/studies\.yaml: .*(?:{says})"):
        parse_studies(STUDIES.replace(old, new, 1), TINY)


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"^studies/studies\.yaml: expected a mapping .* found nothing"
    ):
        parse_studies("", TINY)


def test_a_block_that_is_commented_out_is_empty() -> None:
    bare = STUDIES.replace("overrides: {epochs: 3}", "overrides:  # epochs: 3")
    assert parse_studies(bare, TINY).studies.budget.overrides == {}


def test_the_declared_studies_are_those_of_the_sample() -> None:
    """In a fresh clone, params.yaml too is that of the sample."""
    folder = Path(ROOT / "studies")
    for name in ("studies.yaml", "tuning.yaml"):
        assert (folder / name).read_text() == (folder / "profiles/sample" / name).read_text()
