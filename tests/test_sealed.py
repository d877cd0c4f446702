from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from project import PARAMS
from tiny_dataset import SPLIT, make, write_dataset

from roofseg.errors import UserError
from roofseg.sealed import committed_digest, open_test

DIGEST, OTHER = "0123456789ab", "ba9876543210"


def git(folder: Path, *command: str) -> None:
    who = [
        "-c",
        "user.email=test@example.org",
        "-c",
        "user.name=test",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


def set_final(folder: Path, small: str | None) -> None:
    value = f'"{small}"' if small else "null"
    (folder / "params.yaml").write_text(PARAMS.replace("\n  small: null", f"\n  small: {value}"))


def commit(folder: Path, small: str | None) -> None:
    set_final(folder, small)
    git(folder, "add", "params.yaml")
    git(folder, "commit", "-q", "--allow-empty", "-m", "params")


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    make(write_dataset(folder / "data", SPLIT), folder / "patches")
    return folder / "patches"


@pytest.fixture
def project(tmp_path: Path, patches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in a git repository of its own (nothing committed), and the current one."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # a git hook that runs the tests sets GIT_DIR
    monkeypatch.chdir(tmp_path)
    shutil.copytree(patches, tmp_path / "patches")
    git(tmp_path, "init", "-q")
    return tmp_path


def names(final: str | None, digest: str = DIGEST) -> list[str] | None:
    """The test tiles that ``open_test`` gives, or None where they stay sealed."""
    opened = open_test(Path("patches"), attempt="small", digest=digest, final=final)
    return opened and [patch.tile for patch in opened]


def test_opens_where_commit_parameters_and_model_agree(project: Path) -> None:
    commit(project, DIGEST)
    assert names(final=DIGEST) == ["d"]


def test_opens_one_attempt_alone(project: Path) -> None:
    commit(project, DIGEST)
    assert open_test(Path("patches"), attempt="smaller", digest=DIGEST, final=None) is None
    with pytest.raises(UserError, match=r"final\.smaller"):
        open_test(Path("patches"), attempt="smaller", digest=DIGEST, final=DIGEST)


def test_stays_sealed_without_a_final_digest(project: Path) -> None:
    commit(project, None)
    assert names(final=None) is None
    # What is committed does not open it where the parameters in force say null.
    commit(project, DIGEST)
    assert names(final=None) is None


def test_another_recipe_stays_sealed(project: Path) -> None:
    # dvc exp run -S lr=...: the digest is committed, the model has another.
    commit(project, DIGEST)
    assert names(final=DIGEST, digest=OTHER) is None


@pytest.mark.parametrize("before", [None, OTHER])
def test_a_digest_that_is_not_committed_is_an_error(project: Path, before: str | None) -> None:
    # dvc exp run -S final.small=...: the model agrees, the commit does not.
    commit(project, before)
    set_final(project, DIGEST)
    git(project, "add", "params.yaml")  # staged is not committed
    with pytest.raises(UserError, match=r"git commit params.yaml") as caught:
        names(final=DIGEST)
    message = str(caught.value)
    assert message.startswith(f"params.yaml: final.small is '{DIGEST}' here, but ")
    assert (before or "null") in message
    # Committed, it opens.
    commit(project, DIGEST)
    assert names(final=DIGEST) == ["d"]


def test_only_the_newest_commit_counts(project: Path) -> None:
    commit(project, DIGEST)
    commit(project, OTHER)
    with pytest.raises(UserError, match=OTHER):
        names(final=DIGEST)


def test_sealed_where_nothing_is_committed(project: Path) -> None:
    assert committed_digest("small", project) is None
    assert names(final=None) is None
    with pytest.raises(UserError, match=r"git commit params.yaml"):
        names(final=DIGEST)


def test_sealed_outside_git(project: Path) -> None:
    commit(project, DIGEST)
    shutil.rmtree(project / ".git")
    assert committed_digest("small", project) is None
    assert names(final=None) is None
    with pytest.raises(UserError, match=r"git commit params.yaml"):
        names(final=DIGEST)


def test_sealed_patches_need_not_be_there(project: Path) -> None:
    # dvc pull patches/train patches/val is enough to train and to score val.
    shutil.rmtree(project / "patches" / "test")
    commit(project, DIGEST)
    assert names(final=None) is None
    assert names(final=DIGEST, digest=OTHER) is None
    with pytest.raises(UserError, match=r"crops.csv: no such file"):
        names(final=DIGEST)


def test_an_old_commit_with_other_keys_does_not_stop_val(project: Path) -> None:
    set_final(project, None)
    (project / "params.yaml").write_text("learning_rate: 1\n")
    git(project, "add", "params.yaml")
    git(project, "commit", "-q", "-m", "before this version")
    assert names(final=None) is None
    with pytest.raises(UserError, match=r"params.yaml of HEAD: learning_rate: unknown key"):
        names(final=DIGEST)


def test_a_project_below_the_root_of_its_repository(
    project: Path, patches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "roofs"
    shutil.copytree(patches, below / "patches")
    commit(project, OTHER)
    commit(below, DIGEST)
    monkeypatch.chdir(below)
    assert names(final=DIGEST) == ["d"]
