"""`roofseg profile`: which profiles it puts in force, and which edits it does not overwrite."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from graph import ROOT
from project import PARAMS, git

from roofseg.core.errors import UserError

SAMPLE = (ROOT / "profiles" / "sample.yaml").read_text()

Roofseg = Callable[..., None]


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three profiles, outside any git repository, which is the current folder."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "sample.yaml").write_text(SAMPLE)
    (tmp_path / "profiles" / "tiny.yaml").write_text(PARAMS)
    (tmp_path / "profiles" / "broken.yaml").write_text(PARAMS.replace("lr: 0.001", "lr: 7"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_profile_is_put_in_force(profiles: Path, roofseg: Roofseg) -> None:
    roofseg("profile", "tiny")
    assert (profiles / "params.yaml").read_text() == PARAMS
    roofseg("profile", "tiny")  # again: no edit would be lost


def test_what_follows_from_another_profile_is_said(
    profiles: Path, roofseg: Roofseg, capsys: pytest.CaptureFixture[str]
) -> None:
    (profiles / "metrics").mkdir()
    (profiles / "metrics" / "leaderboard.md").touch()
    roofseg("profile", "sample")
    roofseg("profile", "tiny")
    said = capsys.readouterr()
    assert said.out.count("No recipe in it is final, so test is sealed") == 2
    other = "warning: metrics/ and report.md show other tiles until `dvc repro` has run on"
    assert " ".join(said.err.split()) == f"{other} sample {other} tiny"
    roofseg("profile", "tiny")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["nosuch", "", "tiny.yaml", "../profiles/tiny"])
def test_an_unknown_profile_is_named_with_the_known_ones(
    profiles: Path, roofseg: Roofseg, name: str
) -> None:
    known = "broken, sample, tiny"
    with pytest.raises(UserError, match=f"no profile '{re.escape(name)}'; .* one of: {known}$"):
        roofseg("profile", name)
    assert not (profiles / "params.yaml").exists()


def test_a_broken_profile_is_not_put_in_force(profiles: Path, roofseg: Roofseg) -> None:
    with pytest.raises(UserError, match=r"profiles/broken\.yaml: lr: found 7"):
        roofseg("profile", "broken")
    assert not (profiles / "params.yaml").exists()


def test_edits_that_are_not_committed_are_not_overwritten(profiles: Path, roofseg: Roofseg) -> None:
    params = profiles / "params.yaml"
    edited = SAMPLE.replace("lr: 0.001", "lr: 0.002")
    params.write_text(edited)
    with pytest.raises(UserError, match="uncommitted edits"):  # outside git nothing is committed
        roofseg("profile", "tiny")
    git(profiles, "init", "-q")
    with pytest.raises(UserError, match="uncommitted edits"):
        roofseg("profile", "tiny")
    git(profiles, "add", "params.yaml")
    with pytest.raises(UserError, match="uncommitted edits"):
        roofseg("profile", "tiny")
    assert params.read_text() == edited
    git(profiles, "commit", "-q", "-m", "edited")
    roofseg("profile", "tiny")
    assert params.read_text() == PARAMS
    roofseg("profile", "sample")  # the text in force is that of a profile, so it is not lost
    assert params.read_text() == SAMPLE
