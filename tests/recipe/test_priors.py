"""The block `priors` of params.yaml: what is refused, and what the recipe digest covers."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from project import PARAMS
from ruamel.yaml import YAML

from roofseg.core.errors import UserError
from roofseg.recipe.digest import digest, recipe_of
from roofseg.recipe.params import Params, Recipe
from roofseg.recipe.parsing import parse_params

FILE = {
    "file": "~/weights/x.pth",
    "encoder": "tu-mobilenetv3_small_050",
    "sha256": "1" * 64,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "licence": "CC-BY-4.0",
}
HUB = {"encoder": "tu-mobilenetv3_small_050"}
BROUGHT = {"model": "models/oslo", "recipe": "0123456789ab"}


def text(priors: dict[str, Any], **attempts: Any) -> str:
    """The tests' parameters with these priors, and with other keys for some attempts."""
    values = YAML(typ="safe").load(PARAMS)
    for kind, block in priors.items():
        values["priors"][kind] = block
    for name, changes in attempts.items():
        values["attempts"][name] |= changes
    return json.dumps(values)


def parsed(priors: dict[str, Any], **attempts: Any) -> Params:
    return parse_params(text(priors, **attempts))


def small(priors: dict[str, Any], prior: str = "mine", **attempts: Any) -> Recipe:
    return parsed(priors, small={"prior": prior}, **attempts).recipe("small")


def digest_of(priors: dict[str, Any], prior: str = "mine", **attempts: Any) -> str:
    params = parsed(priors, small={"prior": prior}, **attempts)
    return digest(params.recipe("small"), params, {"a": "train"}, {})


def test_the_key_of_older_files_says_where_priors_are_now() -> None:
    values = YAML(typ="safe").load(PARAMS)
    del values["priors"]
    values["sources"]["priors"] = ["scratch", "sam_vit_b"]
    with pytest.raises(UserError, match=r"^some: sources\.priors: this key has moved") as error:
        parse_params(json.dumps(values), "some")
    # The lines of the remedy are valid.
    del values["sources"]["priors"]
    lines = str(error.value).partition("\n")[2]
    values |= YAML(typ="safe").load(lines)
    assert parse_params(json.dumps(values)).priors.names() == ["scratch", "sam_vit_b"]


@pytest.mark.parametrize(
    ("priors", "says"),
    [
        ({"known": ["scratch", "imagenet"]}, r"priors\.known: found 'imagenet'; expected some of"),
        ({"hub": {"scratch": HUB}}, r"priors\.hub\.scratch: .* which is reserved"),
        ({"hub": {"x": HUB}, "files": {"x": FILE}}, r"priors\.hub\.x: another prior has this name"),
        ({"hub": {"a b": HUB}}, r"priors\.hub\.a b: a name starts with a letter"),
        ({"hub": {"x": {}}}, r"priors\.hub\.x\.encoder: missing"),
        ({"hub": {"x": {**HUB, "encodr": 1}}}, r"x\.encodr: unknown key .*encoder, weights, lic"),
        ({"hub": {"x": {**HUB, "mean": [0.5] * 3}}}, r"priors\.hub\.x: .*both mean and std"),
        ({"files": {"x": {**FILE, "renam": {}}}}, r"x\.renam: unknown key .*rename, ignore"),
        ({"files": {"x": {**FILE, "sha256": "12"}}}, r"priors\.files\.x\.sha256: found '12'"),
        (
            {"files": {"x": {**FILE, "mean": [124, 116, 104]}}},
            r"files\.x\.mean: .*divide .*by 255",
        ),
        (
            {"files": {"x": {**FILE, "std": [0, 1, 1]}}},
            r"files\.x\.std\S*: found 0; .*than 0",
        ),
        ({"files": {"x": {**FILE, "ignore": ["/(/"]}}}, r"x\.ignore: .*/\(/ is no regular expres"),
        (
            {"files": {"x": {**FILE, "rename": [{"/a/": r"\1"}]}}},
            r"x\.rename: .*invalid group refer",
        ),
        (
            {"files": {"x": {**FILE, "rename": [{"a.": None}]}}},
            r"x\.rename: .*a\. is replaced by nothing, .*`a\.: \"\"` removes it",
        ),
        (
            {"files": {"x": {**FILE, "rename": [{"a.": "", "b.": ""}]}}},
            r"x\.rename: .*one rule in each item",
        ),
        ({"models": {"x": {"model": "models/oslo"}}}, r"models\.x\.recipe: missing: models/oslo"),
        (
            {"models": {"x": {"model": "models/small", "recipe": "0123456789ab"}}},
            r"models\.x\.recipe: has no effect, since models/small is .* of attempt small",
        ),
        (
            {"models": {"x": {"model": "models/small", "mean": [0.5] * 3, "std": [0.5] * 3}}},
            r"models\.x\.mean: has no effect",
        ),
        ({"models": {"x": {**BROUGHT, "recipe": 123456789e12}}}, r"x\.recipe: .*so quote them"),
        ({"models": {"x": {**BROUGHT, "model": "~/oslo"}}}, r"x\.model: .*in this project"),
        ({"models": {"x": {**BROUGHT, "model": "../oslo"}}}, r"x\.model: .*in this project"),
        ({"models": {"x": {**BROUGHT, "model": "/oslo"}}}, r"x\.model: .*in this project"),
        ({"models": {"x": {**BROUGHT, "model": "patches/test"}}}, r"patches/ holds tiles"),
        ({"models": {"x": {**BROUGHT, "part": "head"}}}, r"models\.x\.part: found 'head'"),
    ],
)
def test_a_wrong_declaration_names_its_key(priors: Any, says: str) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: .*{says}"):
        parse_params(text(priors))


@pytest.mark.parametrize("missing", ["file", "encoder", "sha256", "mean", "std", "licence"])
def test_what_a_file_must_declare(missing: str) -> None:
    with pytest.raises(UserError, match=rf"priors\.files\.x\.{missing}: missing"):
        parse_params(text({"files": {"x": {k: v for k, v in FILE.items() if k != missing}}}))


@pytest.mark.parametrize(
    ("priors", "attempts", "says"),
    [
        ({}, {"small": {"prior": "mine"}}, "found 'mine', which no stage makes: .* has scratch"),
        (
            {"known": []},
            {},
            "found 'scratch', which no stage makes: .* has none. Add scratch to priors.known",
        ),
        (
            {"hub": {"mine": {"encoder": "resnet34"}}},
            {"small": {"prior": "mine"}},
            "holds weights of encoder resnet34, with encoder tu-mobilenetv3_small_050",
        ),
        (
            {"models": {"mine": {"model": "models/smaller", "part": "all"}}},
            {"small": {"prior": "mine"}},
            "weights of architecture deeplabv3plus, with architecture unet.*set `part: encoder`",
        ),
        (
            {"models": {"mine": {"model": "models/smaller"}}},
            {"small": {"prior": "mine", "encoder": "resnet18"}},
            "weights of encoder tu-mobilenetv3_small_050, with encoder resnet18",
        ),
        (
            {"models": {"mine": {"model": "models/small"}}},
            {"small": {"prior": "mine"}},
            "leads in a circle: small -> small",
        ),
        (
            {"models": {"a": {"model": "models/smaller"}, "b": {"model": "models/small"}}},
            {"small": {"prior": "a"}, "smaller": {"prior": "b"}},
            "leads in a circle: small -> smaller -> small",
        ),
        ({}, {"small": {"declared": {"part": "all"}}}, "unknown key"),
    ],
)
def test_an_attempt_whose_prior_does_not_fit(priors: Any, attempts: Any, says: str) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: attempts\.small\..*{says}"):
        parse_params(text(priors, **attempts))


def test_recipes_of_known_priors_do_not_mention_declarations() -> None:
    recipe = parsed({"files": {"mine": FILE}}).recipe("small")
    assert "declared" not in recipe.model_dump(mode="json")
    assert "declared" not in recipe_of(recipe, parsed({}), {}, {})
    assert recipe.statistics is None


def test_the_declaration_of_a_file_is_part_of_the_recipe() -> None:
    recipe = small({"files": {"mine": FILE}})
    assert recipe.statistics == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert not recipe.prior_has_decoder
    # It survives the file that training writes.
    again = Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json"))))
    assert again == recipe


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"sha256": "2" * 64}, True),
        ({"mean": [0.4, 0.5, 0.7]}, True),
        ({"std": [0.2, 0.3, 0.5]}, True),
        ({"rename": [{"a": "b"}]}, True),
        ({"ignore": ["a"]}, True),
        ({"key": "model"}, True),
        ({"file": "/elsewhere/x.pth"}, False),
        ({"licence": "MIT"}, False),
    ],
)
def test_the_digest_covers_what_decides_the_weights(changes: Any, differs: bool) -> None:
    before = digest_of({"files": {"mine": FILE}})
    assert (digest_of({"files": {"mine": {**FILE, **changes}}}) != before) == differs


def test_the_order_of_rules_is_part_of_the_digest() -> None:
    rules = [{"a": "b"}, {"b": "c"}]
    one, other = (
        digest_of({"files": {"mine": {**FILE, "rename": ordered}}})
        for ordered in (rules, rules[::-1])
    )
    assert one != other


def test_rules_without_an_order_say_how_to_write_them() -> None:
    """The remedy is YAML that means the same rules."""
    rules = {"backbone.": "", r"/^layers\.(\d)/": r"stages_\1"}
    with pytest.raises(UserError, match=r"files\.x\.rename: .*expected a list, since DVC") as error:
        parse_params(text({"files": {"x": {**FILE, "rename": rules}}}))
    remedy = YAML(typ="safe").load(str(error.value).split("`")[1])
    assert parsed({"files": {"x": {**FILE, **remedy}}}).priors.files["x"].rules == [*rules.items()]


def test_the_digest_covers_the_recipe_of_an_earlier_model() -> None:
    """Any change of the first recipe changes the second, but not the attempt's name."""
    chain = {"models": {"mine": {"model": "models/smaller"}}}
    before = digest_of(chain)
    assert digest_of(chain, smaller={"lr": 0.0007}) != before
    assert digest_of({"models": {"mine": {"model": "models/smaller", "part": "encoder"}}}) == before
    whole = {"models": {"mine": {"model": "models/smaller", "part": "all"}}}
    unets = {"smaller": {"architecture": "unet"}}
    assert digest_of(whole, **unets) != digest_of(chain, **unets)
    assert digest_of({"models": {"mine": BROUGHT}}) != before
    other = {"models": {"mine": {**BROUGHT, "recipe": "f" * 12}}}
    assert digest_of(other) != digest_of({"models": {"mine": BROUGHT}})


def test_statistics_stay_with_the_weights_along_a_chain() -> None:
    priors = {"files": {"first": FILE}, "models": {"mine": {"model": "models/smaller"}}}
    recipe = small(priors, smaller={"prior": "first"})
    assert recipe.statistics == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    brought = {**BROUGHT, "mean": FILE["mean"], "std": FILE["std"]}
    assert small({"models": {"mine": brought}}).statistics == recipe.statistics


@pytest.mark.parametrize(
    ("part", "held", "says"),
    [
        ("encoder", {"encoder": FILE["encoder"]}, None),
        ("encoder", {"encoder": None}, None),  # scratch
        (
            "encoder",
            {"encoder": "tu-mobilenetv3_small_075"},
            "weights of encoder tu-mobilenetv3_",
        ),
        ("all", {"encoder": FILE["encoder"], "model": {"architecture": "unet"}}, None),
        (
            "all",
            {"encoder": FILE["encoder"], "model": {"architecture": "fpn"}},
            "weights of architecture fpn, with architecture unet.*set `part: encoder`",
        ),
    ],
)
def test_a_brought_model_of_another_kind_is_an_error(part: str, held: Any, says: str) -> None:
    """Its declaration does not say which encoder it has, but its record does."""
    recipe = small({"models": {"mine": {**BROUGHT, "part": part}}})
    with pytest.raises(UserError, match=says) if says else nullcontext():
        recipe.check_prior(held)


def test_each_kind_has_its_stage() -> None:
    params = parsed({"hub": {"h": HUB}, "files": {"f": FILE}, "models": {"m": BROUGHT}})
    stages = [params.priors.stage(name) for name in params.priors.names()]
    assert stages == ["prior@scratch", "hub@h", "file@f", "model@m"]
