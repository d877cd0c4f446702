"""docs/elsewhere.md, command by command: at home, on another machine, and at home again.

The remotes of git and DVC are folders. Installation alone is skipped: this environment is the one
that requirements.lock gives.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from graph import ROOT
from processes import started
from project import PARAMS, Project, environment
from ruamel.yaml import YAML

from roofseg.core.run_states import is_finished

pytestmark = pytest.mark.whole

EPOCHS = 8


@dataclass(frozen=True)
class Trip:
    """The folders of a training that moves away and back, and the output of each of its parts."""

    home: Project
    away: Path
    drive: Path
    cut_off: str
    gone_on: str
    nothing_left: str
    back: str


def blocks(drive: Path, origin: Path) -> list[str]:
    """The document's shell blocks, with the names of the test's project."""
    text = (ROOT / "docs" / "elsewhere.md").read_text()
    for old, new in {
        "efficientnet_lite0_imagenet": "scratch",
        "unet_imagenet": "small",
        "https://github.com/you/roofseg.git": str(origin),
        "/mnt/drive/roofseg": str(drive),
        "\nmake .venv/installed\n": "\nmkdir -p .venv/bin && touch .venv/bin/activate\n",
        "\nroofseg ": "\nPYTHONPATH=src python -m roofseg ",  # `make .venv/installed` makes roofseg
    }.items():
        assert old in text
        text = text.replace(old, new)
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    folder = tmp_path_factory.mktemp("trip")
    home, origin = Project.create(folder / "home"), folder / "origin.git"
    home.replace("params.yaml", "epochs: 2", f"epochs: {EPOCHS}")
    home.replace("params.yaml", "early_stopping_patience: 4", f"early_stopping_patience: {EPOCHS}")
    start, end = PARAMS.index("  smaller:"), PARAMS.index("final:")
    home.replace("params.yaml", PARAMS[start:end], "")
    home.replace("params.yaml", "  smaller: null\n", "")
    home.commit("one attempt, for longer")
    home.run(f"git init -q --bare -b main '{origin}'")
    home.run(f"git remote add origin '{origin}' && git push -q -u origin main")
    drive, away = folder / "drive", folder / "away"
    before, elsewhere, all_attempts, after = blocks(drive, origin)

    run(before, home.folder)
    away.mkdir()
    (away / "train.sh").write_text(elsewhere)
    cut_off = run_until(f"epoch 3/{EPOCHS}", away)
    shutil.rmtree(away / "roofseg")  # the next run is on another machine
    gone_on = run("bash -e train.sh", away)
    there = f"source .venv/bin/activate\n{all_attempts}"
    nothing_left = run(there, away / "roofseg")
    back = run(after, home.folder)
    return Trip(home, away / "roofseg", drive, cut_off, gone_on, nothing_left, back)


def user() -> dict[str, str]:
    """A user with a name and no DVC cache, whose programs print at once."""
    who = {
        f"GIT_{role}_{what}": "a@b.c"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return {**environment(), **who, "PYTHONUNBUFFERED": "1"}


def run(commands: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        env=user(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_until(line: str, folder: Path) -> str:
    """Run train.sh and kill all of it when it prints ``line``."""
    with started(
        ["bash", "-e", "train.sh"],
        cwd=folder,
        env=user(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        assert process.stdout
        said = ""
        while line not in said:
            said += (new := process.stdout.readline())
            assert new, said
        os.killpg(process.pid, signal.SIGKILL)
    return said


def objects(folder: Path, name: str) -> list[Path]:
    """The paths at which a DVC cache or remote keeps the output ``name`` of make_patches."""
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
    found = [out["md5"] for out in stages["make_patches"]["outs"] if out["path"] == name]
    return [Path("files", "md5", md5[:2], md5[2:]) for md5 in found]


def test_another_machine_goes_on_where_one_was_cut_off(trip: Trip) -> None:
    assert f"small  epoch 1/{EPOCHS}" in trip.cut_off
    assert f"small  epoch 1/{EPOCHS}" not in trip.gone_on
    assert f"small  epoch {EPOCHS}/{EPOCHS}" in trip.gone_on
    # No evaluate stage has read the model there, so the finished run keeps its state.
    (state,) = (path for path in (trip.drive / "state").iterdir() if path.is_dir())
    assert is_finished(state)


def test_only_what_was_pulled_is_there(trip: Trip) -> None:
    assert sorted(path.name for path in (trip.away / "patches").iterdir()) == ["train", "val"]
    assert not (trip.away / "data" / "tiny" / "imgs").exists()
    assert re.findall(r"Running stage '(.*)'", trip.gone_on) == ["train@small"]


def test_test_was_never_sent(trip: Trip) -> None:
    for name, sent in {"patches/train": True, "patches/val": True, "patches/test": False}.items():
        [stored] = objects(trip.home.folder, name)
        assert (trip.drive / "store" / stored).exists() == sent


def test_training_all_attempts_finds_none_left(trip: Trip) -> None:
    assert "small | Stage 'train@small' didn't change, skipping" in trip.nothing_left
    assert "Running stage" not in trip.nothing_left


def test_home_finds_what_was_trained_elsewhere_unchanged(trip: Trip) -> None:
    ran = set(re.findall(r"Running stage '(.*)'", trip.back))
    assert ran == {"baselines", "evaluate@small", "leaderboard"}
    assert "Stage 'train@small' didn't change, skipping" in trip.back
    for kept in ("models/small/model.safetensors", "metrics/attempts/small/training.json"):
        assert (trip.home.folder / kept).read_bytes() == (trip.away / kept).read_bytes()
