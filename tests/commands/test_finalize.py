"""`roofseg finalize`: which digests it writes into params.yaml, and when it refuses to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from graph import ROOT

from roofseg.commands import finalize
from roofseg.core.errors import UserError
from roofseg.core.files import read_json, write_json
from roofseg.recipe.digest import attempt_digest
from roofseg.recipe.parsing import parse_params, read_params

SAMPLE = (ROOT / "profiles" / "sample.yaml").read_text()

Roofseg = Callable[..., None]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the sample's parameters and two trained U-Nets, the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(SAMPLE)
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "data" / "sample" / "split.csv").write_text("tile,split\na,train\nb,val\nc,test\n")
    (tmp_path / "data" / "sample" / "nudges.csv").write_text("tile,row,col\na,1,2\n")
    for name in ("unet_scratch", "unet_imagenet"):
        record = {"digest": digest_of(name), "result": {"failure": None}}
        write_json(Path("models") / name / "recipe.json", record)
    return tmp_path


def digest_of(attempt: str) -> str:
    return attempt_digest(parse_params(SAMPLE), attempt, dataset=Path("data/sample"))


def final() -> dict[str, str | None]:
    return {name: value for name, value in read_params(Path("params.yaml")).final.items() if value}


def test_the_digest_is_written_and_nothing_else_changes(trained: Path, roofseg: Roofseg) -> None:
    roofseg("finalize", "unet_imagenet")
    name = digest_of("unet_imagenet")
    assert final() == {"unet_imagenet": name}
    expected = SAMPLE.replace("  unet_imagenet:\n  deep", f"  unet_imagenet: {name}\n  deep")
    assert (trained / "params.yaml").read_text() == expected
    roofseg("finalize", "unet_scratch", "unet_imagenet")
    assert final() == {"unet_imagenet": name, "unet_scratch": digest_of("unet_scratch")}


def test_undo_gives_the_file_back(trained: Path, roofseg: Roofseg) -> None:
    roofseg("finalize", "unet_imagenet", "unet_scratch")
    roofseg("finalize", "--undo", "unet_imagenet")
    assert list(final()) == ["unet_scratch"]
    roofseg("finalize", "--undo", "--all")
    assert (trained / "params.yaml").read_text() == SAMPLE


@pytest.mark.parametrize("name", ["123456789012", "12345e678901", "0x1234567890", "012345670123"])
def test_a_digest_that_looks_like_a_number_stays_text(
    trained: Path, roofseg: Roofseg, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(finalize, "trained_digest", lambda *_, **__: name)
    roofseg("finalize", "unet_scratch")
    roofseg("finalize", "unet_imagenet")
    assert final() == {"unet_scratch": name, "unet_imagenet": name}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--all"),
        (["nosuch"], "'nosuch' is not in params.yaml"),
        (["--undo", "nosuch"], "'nosuch' is not in params.yaml"),
        (["unet_imagenet", "nosuch"], "'nosuch' is not in params.yaml"),
        (["sam_conv"], "models/sam_conv/recipe.json: no such file"),
        (["unet_imagenet", "sam_conv"], "models/sam_conv/recipe.json: no such file"),
        (["--all"], "models/deeplabv3plus_imagenet/recipe.json: no such file"),
    ],
)
def test_an_attempt_that_cannot_be_final_changes_nothing(
    trained: Path, roofseg: Roofseg, arguments: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        roofseg("finalize", *arguments)
    assert (trained / "params.yaml").read_text() == SAMPLE


def test_a_model_of_another_recipe_is_not_final(trained: Path, roofseg: Roofseg) -> None:
    edited = SAMPLE.replace("weight_decay: 0.0001", "weight_decay: 0.001")
    (trained / "params.yaml").write_text(edited)
    wanted = attempt_digest(parse_params(edited), "unet_scratch", dataset=Path("data/sample"))
    with pytest.raises(UserError, match=f"now give {wanted}. Run `dvc repro train@unet_scratch`"):
        roofseg("finalize", "unet_scratch")
    assert (trained / "params.yaml").read_text() == edited


def test_a_run_that_ended_early_is_not_final(trained: Path, roofseg: Roofseg) -> None:
    path = trained / "models" / "unet_scratch" / "recipe.json"
    write_json(path, {**read_json(path), "result": {"failure": "the loss is nan at epoch 3."}})
    with pytest.raises(UserError, match=r"training ended early: the loss is nan at epoch 3\."):
        roofseg("finalize", "unet_scratch")
