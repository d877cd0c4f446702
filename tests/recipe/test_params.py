from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from graph import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from project import PARAMS
from ruamel.yaml import YAML

from roofseg.core.errors import UserError
from roofseg.recipe.digest import NEUTRAL, digest, inputs_hash, recipe_of
from roofseg.recipe.params import Machine, Params, PatchSettings, Recipe, SharedRecipe
from roofseg.recipe.parsing import parse_params

PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
SPLIT = {"a": "train", "b": "train", "c": "val", "d": "test"}
NUDGES = {"a": (3, 4)}
MISSING = object()


def values() -> dict[str, Any]:
    """The parameters of the tests' tiny project, as plain values that a test may change."""
    return YAML(typ="safe").load(PARAMS)


def changed(*path: str, to: Any) -> str:
    """The parameters with one value replaced (or left out), as text; JSON is YAML."""
    spoilt = values()
    block = spoilt
    for key in path[:-1]:
        block = block[key]
    if to is MISSING:
        del block[path[-1]]
    else:
        block[path[-1]] = to
    return json.dumps(spoilt)


def digest_of(params: Params, attempt: str = "small") -> str:
    return digest(params.recipe(attempt), params, SPLIT, NUDGES)


def refused(text: str) -> str:
    """The message of the UserError for the parameters ``text``; it names the file."""
    with pytest.raises(UserError) as caught:
        parse_params(text, source="some/params.yaml")
    message = str(caught.value)
    assert message.startswith("some/params.yaml: ")
    return message


@pytest.mark.parametrize(
    ("path", "value", "key", "says"),
    [
        (["larning_rate"], 0.1, "larning_rate", "unknown key"),
        (["attempts", "small", "dropuot"], 0.1, "attempts.small.dropuot", "unknown key"),
        (["attempts", "small", "device"], "cpu", "attempts.small.device", "unknown key"),
        (["lr"], "fast", "lr", "'fast'"),
        (["lr"], [0.1, 0.2], "lr", "[0.1, 0.2]"),
        (["epochs"], 2.5, "epochs", "2.5"),
        (["dataset"], 5, "dataset", "valid string"),
        (["scheduler"], "step", "scheduler", "'plateau', 'cosine' or 'constant'"),
        (["augmentation"], "huge", "augmentation", "'extreme'"),
        (["precision"], "fp8", "precision", "'bf16-mixed'"),
        (["lr"], 1.0, "lr", "less than 1"),
        (["lr"], 0, "lr", "greater than 0"),
        (["patch_size"], 100, "patch_size", "multiple of 32"),
        (["min_building_fraction"], 1.5, "min_building_fraction", "less than or equal to 1"),
        (["dataset"], "../elsewhere", "dataset", "pattern"),
        (["seed"], -1, "seed", "greater than or equal to 0"),
        (["seed"], 2**32, "seed", "less than"),
        # One draw is a last batch of one, which is dropped: nothing would be trained.
        (["draws_per_epoch"], 1, "draws_per_epoch", "greater than 1"),
        (["freeze_epochs"], -1, "freeze_epochs", "greater than or equal to 0"),
        (["freeze_epochs"], "most", "freeze_epochs", "'all'"),
        (["ema_decay"], 1, "ema_decay", "less than 1"),
        (["workers"], -1, "workers", "greater than or equal to 0"),
        (["attempts", "small", "lr"], 7, "attempts.small.lr", "found 7"),
        (["attempts", "small", "freeze_epochs"], -3, "attempts.small.freeze_epochs", "found -3"),
        (["lr"], True, "lr", "not true or false"),
        (["workers"], False, "workers", "not true or false"),
        (["attempts", "small", "dropout"], True, "attempts.small.dropout", "not true or false"),
        (["final", "small"], True, "final.small", "valid string"),
        (["sources"], MISSING, "sources", "missing"),
        (["sources", "generated"], ["oslo"], "sources.generated", "'sample'"),
        (["sources", "downloaded"], None, "sources.downloaded", "valid list"),
        (["sources", "generate"], [], "sources.generate", "generated, downloaded"),
        (["priors", "known"], ["sam_vit_b"], "attempts.small.prior", "Add scratch to priors.known"),
        (["priors"], MISSING, "priors", "missing"),
        (["attempts", "leaderboard"], {}, "attempts.leaderboard", "another name"),
        (["epochs"], None, "epochs", "found None"),
        (["epochs"], MISSING, "epochs", "missing"),
        (["final"], MISSING, "final", "missing"),
        (["attempts", "small", "encoder"], MISSING, "attempts.small.encoder", "missing"),
        (["attempts", "small"], None, "attempts.small", "found None"),
        (["attempts"], {}, "attempts", "at least one"),
        (["attempts"], ["small"], "attempts", "valid dictionary"),
        (["final", "small"], MISSING, "final.small", "Add `small: null` under final"),
        (["final", "smal"], None, "final.smal", "small, smaller"),
        (["attempts", "small", "prior"], "imagenet", "attempts.small.prior", "'imagenet'"),
        (["attempts", "small", "prior"], "resnet34_imagenet", "attempts.small.prior", "resnet34"),
        (
            ["attempts", "small", "encoder"],
            "sam_vit_b",
            "attempts.small.encoder",
            "mobile_sam and SAM 2's tu-sam2_hiera_*. Those go with vit_conv",
        ),
        (["attempts", "small", "architecture"], "sam_unet", "attempts.small.encoder", "sam_vit_b"),
        (["attempts", "smaller", "batch_size"], 1, "batch_size of attempt smaller", "BatchNorm"),
        (["freeze_epochs"], 2, "freeze_epochs of attempt small", "freeze_epochs: all"),
        (["augmentation_pool"], 0, "augmentation_pool", "greater than or equal to 1"),
        (["augmentation_pool"], True, "augmentation_pool", "not true or false"),
        (["augmentation_pool"], 4, "augmentation_pool of attempt small", "must stay frozen"),
        (
            ["attempts", "smaller", "augmentation_pool"],
            4,
            "augmentation_pool of attempt smaller",
            "freeze_epochs is 0",
        ),
        (["evaluate_full_tiles"], "yes", "evaluate_full_tiles", "valid boolean"),
        (["evaluate_full_tiles"], 1, "evaluate_full_tiles", "valid boolean"),
        (
            ["attempts", "small", "evaluate_full_tiles"],
            True,
            "attempts.small.evaluate_full_tiles",
            "unknown",
        ),
        (["algorithms"], "quick", "algorithms", "'deterministic', 'strict' or 'fast'"),
        (["feature_cache_gb"], 0, "feature_cache_gb", "greater than 0"),
        (
            ["attempts", "small", "feature_cache_gb"],
            1,
            "attempts.small.feature_cache_gb",
            "unknown",
        ),
        (["attempts", "small", "epochs"], 0, "attempts.small.epochs", "greater than 0"),
    ],
)
def test_a_wrong_value_names_its_key(path: list[str], value: Any, key: str, says: str) -> None:
    message = refused(changed(*path, to=value))
    assert message.startswith(f"some/params.yaml: {key}: ") or f"{key} is" in message, message
    assert says in message


@pytest.mark.parametrize(
    ("key", "misspelt"), [("epochs", "epoch"), ("attempts.small.encoder", "attempts.small.enc")]
)
def test_a_misspelt_key_is_named_before_the_missing_key(key: str, misspelt: str) -> None:
    text = PARAMS.replace(f"{key.split('.')[-1]}: ", f"{misspelt.split('.')[-1]}: ")
    assert f": {misspelt}: unknown key" in refused(text)
    assert key.split(".")[-1] in refused(text)


@pytest.mark.parametrize("name", ["1", "0x1f", "1e5", "a/b", "a@b", "a b", "a.b", "-a", "", "ä"])
def test_an_attempt_name_that_dvc_cannot_use_is_an_error(name: str) -> None:
    spoilt = values()
    spoilt["attempts"][name] = spoilt["attempts"]["small"]
    spoilt["final"][name] = None
    assert f"attempts.{name}: a name starts with a letter" in refused(json.dumps(spoilt))


@pytest.mark.parametrize("name", ["a", "unet_scratch", "unet-2", "A1e5"])
def test_other_attempt_names_are_allowed(name: str) -> None:
    fine = values()
    fine["attempts"][name] = fine["attempts"]["small"]
    fine["final"][name] = None
    assert name in parse_params(json.dumps(fine)).recipes()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "found nothing"),
        ("- lr: 1\n", "found a list"),
        ("just words", "found a str"),
        ("lr: [1\n", "not valid YAML"),
        ("lr: 1\nlr: 2\n", "not valid YAML"),
        ("lr:\t1\n\tx", "not valid YAML"),
        ("seed: 2024-13-45\n", "not valid YAML"),
        ("1: 2\n", "1: "),
    ],
)
def test_yaml_that_is_not_a_mapping_is_an_error(text: str, says: str) -> None:
    assert says in refused(text)


@given(st.text(alphabet="abz:-#[]{}&*!|>'\"%@`?, \t\n019.e+", max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    refused(text)


@given(
    st.sampled_from([*SharedRecipe.model_fields, *PatchSettings.model_fields, "attempts", "final"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abc01", max_size=4)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text("ab1", max_size=2), st.integers(), max_size=2),
)
def test_any_value_is_accepted_or_its_key_is_named(key: str, value: Any) -> None:
    # An attempt without its line in `final`, or a line without its attempt, may be either's.
    named = re.compile("attempts|final" if key in ("attempts", "final") else key)
    try:
        parse_params(changed(key, to=value))
    except UserError as error:
        said = str(error)
    else:
        return
    assert named.search(said)


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
def test_numbers_that_are_not_finite_are_errors(number: str) -> None:
    text = PARAMS.replace("encoder_lr_factor: 1.0", f"encoder_lr_factor: {number}")
    assert "encoder_lr_factor: found" in refused(text)


@pytest.mark.parametrize(
    ("encoder", "label"),
    [
        ("sam_vit_l", "mine (no SAM weights)"),
        ("mobile_sam", "mine (no SAM weights)"),
        ("tu-sam2_hiera_tiny", "mine (no SAM weights)"),
        ("tu-vit_small_patch14_dinov2", "mine"),
    ],
)
def test_the_label_of_a_sam_encoder_without_a_prior_says_so(encoder: str, label: str) -> None:
    text = changed("attempts", "small", "architecture", to="vit_unet")
    recipe = parse_params(text).recipe("small").model_copy(update={"encoder": encoder})
    assert recipe.label("mine") == label
    assert recipe.model_copy(update={"prior": "sam_vit_b"}).label("mine") == "mine"


def test_an_attempt_overrides_shared_keys_for_itself() -> None:
    params = parse_params(PARAMS)
    assert params.recipe("small").lr == params.lr == 0.001
    assert params.recipe("smaller").lr == 0.0003
    assert list(params.recipes()) == ["small", "smaller"]
    assert params.recipe("smaller").architecture == "deeplabv3plus"
    assert params.machine() == Machine(
        device="cpu",
        devices=1,
        strategy="auto",
        workers=0,
        overlay_every=1,
        feature_cache_gb=1,
    )


def test_an_unknown_attempt_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'large' is not in .* it has: small, smaller"):
        parse_params(PARAMS).recipe("large")


def test_parameters_are_frozen() -> None:
    params = parse_params(PARAMS)
    with pytest.raises(ValueError, match="frozen"):
        params.lr = 0.1
    with pytest.raises(ValueError, match="frozen"):
        params.recipe("small").lr = 0.1


@pytest.mark.parametrize(("freeze", "thaw"), [(0, 0), (1, 1), ("1", 1), ("all", None)], ids=str)
def test_thaw_epoch(freeze: Any, thaw: int | None) -> None:
    assert parse_params(changed("freeze_epochs", to=freeze)).recipe("small").thaw_epoch == thaw


@pytest.mark.parametrize(("freeze", "short"), [(0, 0), (7, 1), ("all", "all")])
def test_shortened_is_two_epochs_of_two_batches(freeze: Any, short: Any) -> None:
    spoilt = {**values(), "epochs": 9, "freeze_epochs": freeze}
    recipe = parse_params(json.dumps(spoilt)).recipe("small").shortened()
    assert (recipe.epochs, recipe.draws_per_epoch, recipe.freeze_epochs) == (2, 4, short)
    assert Recipe.model_validate(recipe.model_dump()) == recipe


# Digest


# Another valid value for every key of a recipe and of the patches.
OTHER = {
    "seed": 2,
    "epochs": 3,
    "draws_per_epoch": 6,
    "batch_size": 4,
    "lr": 0.002,
    "weight_decay": 0.0,
    "augmentation": "none",
    "dropout": 0.2,
    "bce_weight": 1,
    "scheduler": "cosine",
    "plateau_factor": 0.1,
    "plateau_patience": 0,
    "early_stopping_patience": 5,
    "freeze_epochs": "all",
    "encoder_lr_factor": 0.1,
    "gradient_clip": 0.5,
    "ema_decay": 0.9,
    "precision": "32-true",
    "augmentation_pool": 4,
    "algorithms": "strict",
    "architecture": "deeplabv3plus",
    "encoder": "tu-tf_efficientnet_lite0",
    "prior": "sam_vit_b",
    "declared": {"part": "encoder", "recipe": "0123456789ab"},
    "dataset": "other",
    "patch_size": 96,
    "min_building_fraction": 0.02,
}


@pytest.mark.parametrize(
    "key",
    [key for key in (*Recipe.model_fields, *PatchSettings.model_fields) if "lora" not in key],
)
def test_every_key_of_recipe_and_patches_changes_the_digest(key: str) -> None:
    params = parse_params(PARAMS)
    recipe, patches = params.recipe("small").model_dump(), params.model_dump()
    before = digest_of(params)
    assert re.fullmatch("[0-9a-f]{12}", before)
    for block in (recipe, patches):
        if key in block or (block is recipe and key == "declared"):
            assert block.get(key) != OTHER[key]
            block[key] = OTHER[key]
    after = digest(Recipe.model_validate(recipe), Params.model_validate(patches), SPLIT, NUDGES)
    assert after != before


def covered(recipe: Recipe) -> dict[str, Any]:
    return recipe_of(recipe, parse_params(PARAMS), SPLIT, NUDGES)


@given(st.sets(st.sampled_from(sorted(NEUTRAL))))
def test_the_digest_leaves_out_a_key_with_its_neutral_value(changed_keys: set[str]) -> None:
    plain = parse_params(PARAMS).recipe("small").model_copy(update=NEUTRAL)
    recipe = plain.model_copy(update={key: OTHER[key] for key in changed_keys})
    assert covered(plain).keys().isdisjoint(NEUTRAL)
    assert covered(recipe) == {**covered(plain), **{key: OTHER[key] for key in changed_keys}}


def test_digests_from_before_the_neutral_keys_are_unchanged() -> None:
    # git has digests of final recipes from before the keys in ``NEUTRAL`` existed.
    assert NEUTRAL == {"augmentation_pool": None, "algorithms": "deterministic"}
    params = parse_params(PARAMS)
    assert digest_of(params, "small") == "ff2ab98828ae"
    assert digest_of(params, "smaller") == "9309acd9a084"


def test_evaluation_settings_do_not_change_the_digest() -> None:
    params = [parse_params(changed("evaluate_full_tiles", to=value)) for value in (False, True)]
    assert [variant.evaluate_full_tiles for variant in params] == [False, True]
    assert len({digest_of(variant) for variant in params}) == 1


def test_a_pool_is_for_an_encoder_that_stays_frozen() -> None:
    pooled = {**values(), "augmentation_pool": 4, "freeze_epochs": "all"}
    params = parse_params(json.dumps(pooled))
    assert params.recipe("small").augmentation_pool == 4
    pooled["attempts"]["small"] |= {"augmentation_pool": None, "freeze_epochs": 1}
    assert parse_params(json.dumps(pooled)).recipe("small").augmentation_pool is None


@pytest.mark.parametrize(
    ("split", "nudges"),
    [
        ({**SPLIT, "b": "val"}, NUDGES),
        ({**SPLIT, "e": "train"}, NUDGES),
        ({key: SPLIT[key] for key in "acd"}, NUDGES),
        (SPLIT, {}),
        (SPLIT, {"a": (4, 3)}),
        (SPLIT, {"b": (3, 4)}),
    ],
)
def test_split_and_nudges_change_the_digest(split: dict[str, str], nudges: dict[str, Any]) -> None:
    params = parse_params(PARAMS)
    assert digest(params.recipe("small"), params, split, nudges) != digest_of(params)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["device"], "auto"),
        (["workers"], 3),
        (["overlay_every"], 0),
        (["feature_cache_gb"], 0.5),
        (["final", "small"], "0123456789ab"),
        (["final", "smaller"], "0123456789ab"),
        (["attempts", "smaller", "lr"], 0.5),
        (["attempts", "smaller", "architecture"], "unet"),
        (["attempts", "small", "lr"], 0.001),  # overrides the shared value with the same value
    ],
)
def test_other_settings_do_not_change_the_digest(path: list[str], value: Any) -> None:
    assert digest_of(parse_params(changed(*path, to=value))) == digest_of(parse_params(PARAMS))


def test_a_shared_key_that_the_attempt_overrides_does_not_change_its_digest() -> None:
    other = parse_params(changed("lr", to=0.5))
    assert digest_of(other, "smaller") == digest_of(parse_params(PARAMS), "smaller")
    assert digest_of(other, "small") != digest_of(parse_params(PARAMS), "small")


@pytest.mark.parametrize(
    ("spellings", "number"),
    [
        (["0.001", "1e-3", "1e-03", "1.0e-3", "1E-3", "'1e-3'", "0.0010", "+.001"], 1e-3),
        (["1e-05", "0.00001", "1e-5", "'1e-05'"], 1e-5),
        (["3e-4", "0.0003"], 3e-4),
    ],
)
def test_spellings_of_a_number_give_one_digest(spellings: list[str], number: float) -> None:
    digests = set()
    for spelling in spellings:
        params = parse_params(PARAMS.replace("lr: 0.001", f"lr: {spelling}", 1))
        assert params.lr == number
        digests.add(digest_of(params))
    assert len(digests) == 1


def test_integers_and_equal_floats_give_one_digest() -> None:
    spellings = ["1", "1.0", "1e0", "'1'"]
    texts = [PARAMS.replace("bce_weight: 0.5", f"bce_weight: {each}") for each in spellings]
    texts += [text.replace("epochs: 2", "epochs: 2.0") for text in texts]
    assert len({digest_of(parse_params(text)) for text in texts}) == 1


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_change_the_digest(random: Any) -> None:
    def shuffled(block: Any) -> Any:
        if not isinstance(block, dict):
            return block
        keys = sorted(block)
        random.shuffle(keys)
        return {key: shuffled(block[key]) for key in keys}

    params = parse_params(json.dumps(shuffled(values())))
    split, nudges = shuffled(SPLIT), shuffled({"a": (3, 4), "b": (0, 0)})
    plain = parse_params(PARAMS)
    assert digest(params.recipe("small"), params, split, nudges) == digest(
        plain.recipe("small"), plain, SPLIT, {"b": [0, 0], "a": [3, 4]}
    )


def test_the_digest_is_the_same_in_every_process() -> None:
    script = (
        "import sys\n"
        "from roofseg.recipe.digest import digest\n"
        "from roofseg.recipe.parsing import parse_params\n"
        "params = parse_params(sys.stdin.read())\n"
        f"print(digest(params.recipe('small'), params, {SPLIT!r}, {NUDGES!r}))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed},
            input=PARAMS,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == digest_of(parse_params(PARAMS))


def test_precision_stays_as_written() -> None:
    params = parse_params(PARAMS)
    found = recipe_of(params.recipe("small"), params, SPLIT, NUDGES)
    assert found["precision"] == "auto"
    assert json.loads(json.dumps(found)) == found


# Training inputs


def tree(folder: Path) -> list[Path]:
    """Files and folders such as training reads."""
    for name in ("code.py", "train/images/a.jpg", "train/crops.csv", "val/crops.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return [folder / "code.py", folder / "train", folder / "val"]


def test_inputs_hash_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    here, there = tree(tmp_path / "here"), tree(tmp_path / "over" / "there")
    name = inputs_hash("0123456789ab", here)
    assert re.fullmatch("[0-9a-f]{64}", name)
    assert inputs_hash("0123456789ab", reversed(there)) == name
    assert inputs_hash("ba9876543210", here) != name


@pytest.mark.parametrize(
    "name", ["code.py", "train/images/a.jpg", "train/crops.csv", "val/crops.csv"]
)
def test_inputs_hash_changes_with_any_file(tmp_path: Path, name: str) -> None:
    paths = tree(tmp_path)
    before = inputs_hash("0123456789ab", paths)
    (tmp_path / name).write_text(f"CONTENT of {name}")  # of the same length
    assert inputs_hash("0123456789ab", paths) != before


def test_inputs_hash_changes_with_a_new_name_and_a_new_file(tmp_path: Path) -> None:
    paths = tree(tmp_path)
    before = inputs_hash("0123456789ab", paths)
    image = tmp_path / "train" / "images" / "a.jpg"
    image.rename(image.with_name("b.jpg"))
    renamed = inputs_hash("0123456789ab", paths)
    image.write_bytes(b"")
    assert len({before, renamed, inputs_hash("0123456789ab", paths)}) == 3


# Profiles


def test_the_profiles_exist() -> None:
    assert {"sample", "inria", "austin512", "beyond"} <= {path.stem for path in PROFILES}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_is_valid_and_seals_every_attempt(path: Path) -> None:
    params = parse_params(path.read_text(), source=str(path))
    assert params.dataset == {"beyond": "inria"}.get(path.stem, path.stem)
    assert params.final == dict.fromkeys(params.attempts)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_key_of_a_profile_has_a_comment(path: Path) -> None:
    keys = Params.model_fields.keys() - {"sources", "priors", "attempts", "final"}
    knobs = [line for line in path.read_text().splitlines() if line.partition(":")[0] in keys]
    assert len(knobs) == len(keys)
    assert [line for line in knobs if "  # " not in line] == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_lists_just_the_sources_of_its_inputs(path: Path) -> None:
    params = parse_params(path.read_text())
    assert set(params.priors.names()) == {recipe.prior for recipe in params.recipes().values()}
    own = {*params.sources.generated, *params.sources.downloaded}
    assert own == {params.dataset} & {"sample", "inria"}


def test_the_inria_profile_has_the_published_recipe() -> None:
    params = parse_params((ROOT / "profiles" / "inria.yaml").read_text())
    recipes = params.recipes()
    assert list(recipes) == [
        "unet_scratch",
        "unet_imagenet",
        "deeplabv3plus_imagenet",
        "sam_conv",
        "sam_unet",
    ]
    assert params.patch_size == 1024
    assert params.min_building_fraction == 0.05
    for name, recipe in recipes.items():
        sam = name.startswith("sam_")
        assert recipe.lr == (1e-4 if sam else 1e-3)
        assert recipe.batch_size == (2 if sam else 4)
        assert recipe.encoder == ("sam_vit_b" if sam else "resnet34")
        assert recipe.dropout == (0.0 if name == "unet_scratch" else 0.3)
        assert recipe.thaw_epoch == {"unet_scratch": 0}.get(name, None if sam else 20)
        assert recipe.prior == {"unet_scratch": "scratch"}.get(
            name, "sam_vit_b" if sam else "resnet34_imagenet"
        )
        assert recipe.model_dump(
            exclude={"lr", "batch_size", "dropout", "freeze_epochs", "architecture", "encoder"}
            | {"prior"}
        ) == {
            "seed": 42,
            "epochs": 60,
            "draws_per_epoch": 400,
            "weight_decay": 1e-4,
            "augmentation": "medium",
            "bce_weight": 0.5,
            "scheduler": "plateau",
            "plateau_factor": 0.5,
            "plateau_patience": 3,
            "early_stopping_patience": 10,
            "encoder_lr_factor": 1.0,
            "gradient_clip": 1.0,
            "ema_decay": None,
            "precision": "auto",
            "augmentation_pool": None,
            "algorithms": "deterministic",
        }


def test_the_sample_profile_is_a_smaller_inria_profile() -> None:
    sample, inria = (
        parse_params((ROOT / "profiles" / f"{name}.yaml").read_text())
        for name in ("sample", "inria")
    )
    patience = {"plateau_patience", "early_stopping_patience"}
    shrunk = {"epochs", "draws_per_epoch", "batch_size", "freeze_epochs", *patience}
    # A run is short, so it must not depend on its last steps.
    steadier = {"scheduler", "ema_decay"}
    for name, recipe in sample.recipes().items():
        study = inria.recipe(name)
        differing = {key for key, value in study if getattr(recipe, key) != value}
        # Without SAM's weights, the SAM attempts need a larger lr and a smaller weight of BCE. With
        # fixed views their encoder takes less time.
        own = {"lr", "bce_weight", "augmentation_pool"} if name.startswith("sam_") else set()
        # From random weights, some seeds would hardly begin to learn in so few epochs.
        own |= {"lr", "augmentation"} if name == "unet_scratch" else set()
        assert differing <= shrunk | steadier | {"encoder", "prior"} | own
        assert recipe.epochs < study.epochs
        # freeze_epochs may be smaller, but 0 stays 0 and `all` stays `all`.
        assert [recipe.thaw_epoch == 0, recipe.thaw_epoch is None] == [
            study.thaw_epoch == 0,
            study.thaw_epoch is None,
        ]
    assert math.gcd(sample.patch_size, 14 * 16) == 14 * 16  # whole attention windows of SAM


@pytest.mark.parametrize(
    "path",
    [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))],
    ids=lambda p: p.stem,
)
def test_an_experiment_changes_the_line_of_its_key_alone(path: Path, tmp_path: Path) -> None:
    """`dvc exp run -S` writes the whole file anew, but the file has the form that DVC writes."""
    text = path.read_text()
    (tmp_path / "params.yaml").write_text(text)
    apply_overrides(tmp_path / "params.yaml", ["seed=77"])
    assert (tmp_path / "params.yaml").read_text() == text.replace("seed: 42", "seed: 77")


def committed(name: str) -> str:
    done = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"{name} is not in a git commit here")
    return done.stdout


@pytest.mark.release
def test_the_committed_params_yaml_equals_the_sample_profile_except_for_final() -> None:
    params, sample = committed("params.yaml"), committed("profiles/sample.yaml")
    assert params.partition("\nfinal:\n")[0] == sample.partition("\nfinal:\n")[0]
    assert list(parse_params(params).final) == list(parse_params(sample).final)
