"""The keys of LoRA in params.yaml: their defaults, the digest, and what contradicts them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from project import PARAMS
from ruamel.yaml import YAML

from roofseg.core.errors import UserError
from roofseg.recipe.digest import recipe_of
from roofseg.recipe.lora import Lora
from roofseg.recipe.params import Params, Recipe
from roofseg.recipe.parsing import parse_params

KEYS = {"lora_rank", "lora_alpha", "lora_targets"}


def adapted(**changes: Any) -> Params:
    values = YAML(typ="safe").load(PARAMS)
    vit = {"architecture": "vit_conv", "encoder": "mobile_sam"}
    values["attempts"]["small"] |= vit | {"lora_rank": 8} | changes
    return parse_params(json.dumps(values))


def test_the_defaults() -> None:
    recipe = adapted().recipe("small")
    assert recipe.lora == Lora(rank=8, alpha=8.0, targets=("proj", "qkv"))
    assert str(recipe.lora) == "LoRA of rank 8"
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    own = adapted(lora_alpha=16, lora_targets=["fc1"]).recipe("small")
    assert own.lora == Lora(rank=8, alpha=16.0, targets=("fc1",))


def test_the_digest_covers_them_and_recipes_without_them_have_none() -> None:
    params = adapted()

    def covered(recipe: Recipe) -> dict[str, Any]:
        return recipe_of(recipe, params, {}, {})

    plain = params.recipe("smaller")
    assert plain.lora is None
    assert KEYS.isdisjoint(plain.model_dump())
    assert KEYS.isdisjoint(covered(plain))
    assert covered(adapted(lora_rank=None).recipe("small")).keys() == covered(plain).keys()
    found = covered(params.recipe("small"))
    assert found.keys() - covered(plain).keys() == KEYS
    # Defaults are in the digest, so it stays true if they ever change.
    assert found == covered(adapted(lora_alpha=8, lora_targets=["qkv", "proj"]).recipe("small"))
    assert found == covered(adapted(lora_targets=["proj", "qkv"]).recipe("small"))  # in any order
    with pytest.raises(UserError, match=r"lora_targets: .*expected each name once"):
        adapted(lora_targets=["qkv", "proj", "qkv"])
    for changes in ({"lora_rank": 4}, {"lora_alpha": 1}, {"lora_targets": ["qkv"]}):
        assert covered(adapted(**changes).recipe("small")) != found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lora_rank": 0}, "lora_rank: found 0; .*greater than or equal to 1"),
        ({"lora_rank": -8}, "lora_rank: found -8"),
        ({"lora_rank": "high"}, "lora_rank: found 'high'"),
        ({"lora_rank": True}, "lora_rank: found True"),
        ({"lora_alpha": 0}, "lora_alpha: found 0"),
        ({"lora_targets": []}, r"lora_targets: found \[\]"),
        ({"lora_targets": "qkv"}, "lora_targets: found 'qkv'; .*list"),
        ({"lora_rank": None, "lora_targets": ["qkv"]}, r"lora_targets: found \['qkv'\] without a"),
        ({"lora_rank": None, "lora_alpha": 8}, "lora_alpha: found 8.* without a lora_rank"),
        ({"freeze_epochs": "all"}, "lora_rank: found 8 with `freeze_epochs: all`.*`freeze_epochs:"),
        ({"augmentation_pool": 4}, "lora_rank: found 8 with an augmentation_pool of 4"),
        (
            {"architecture": "unet", "encoder": "resnet34"},
            "lora_rank: found 8 with architecture 'unet'; LoRA adapts .* sam_conv, sam_unet, vit",
        ),
    ],
)
def test_what_contradicts_them_is_an_error(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: attempts\.small\.{says}"):
        adapted(**changes)


def test_epochs_before_the_deltas_may_train_the_decoder_alone() -> None:
    assert adapted(freeze_epochs=1).recipe("small").thaw_epoch == 1
