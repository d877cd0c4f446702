"""The stage as DVC runs it: `python -m stages.make_patches` from the root of a checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from graph import ROOT
from pseudo_terminal import lines_of, run_in_terminal, screen
from ruamel.yaml import YAML
from tiers import cases
from tiny_dataset import write_dataset

from roofseg.patches import read_patches

SPLIT = {"a": "train", "b": "val", "c": "test"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code with the sample profile, set to a tiny dataset."""
    root = tmp_path / "a clone"
    for folder in ("src", "stages"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "dvc.yaml").touch()
    write_dataset(root / "data" / "mine", SPLIT, size=96)
    set_params(root, dataset="mine", patch_size=64)
    return root


def set_params(root: Path, **values: object) -> None:
    yaml = YAML()
    params = yaml.load((ROOT / "profiles" / "sample.yaml").read_text())
    params.update(values)
    with (root / "params.yaml").open("w") as file:
        yaml.dump(params, file)


def run_stage(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "stages.make_patches"],
        cwd=root,
        capture_output=True,
        text=True,
    )


def test_makes_the_patches(checkout: Path) -> None:
    done = run_stage(checkout)
    assert (done.returncode, done.stderr) == (0, "")
    for tile, split in SPLIT.items():
        (patch,) = read_patches(checkout / "patches" / split)
        assert (patch.tile, patch.mask.shape) == (tile, (64, 64))
    assert (checkout / "patches" / "overview.png").is_file()


def test_warnings_go_to_stderr_as_plain_lines(checkout: Path) -> None:
    for folder in ("imgs", "msks"):
        tile = checkout / "data" / "mine" / folder / "a.tif"
        shutil.copy(tile, tile.with_stem("spare"))
    done = run_stage(checkout)
    assert done.returncode == 0
    assert done.stderr == ("warning: data/mine/split.csv lists no split for spare: left out\n")


def test_in_a_terminal_a_bar_gives_way_to_a_line_that_says_what_was_made(checkout: Path) -> None:
    command = ("-m", "stages.make_patches")
    status, shown = run_in_terminal(*command, cwd=checkout, PYTHONPATH=str(checkout))
    assert status == 0
    assert any(re.match(r"Cutting patches \S+ \d/3 0:\d\d", line) for line in lines_of(shown))
    assert max(map(len, lines_of(shown))) <= 80
    (line,) = screen(shown)
    counts = "patches: 1 of train, 1 of val, 1 of test"
    assert re.fullmatch(rf"{counts}, in \d+\.\d s; look at patches/overview\.png", line)


@pytest.mark.whole
def test_after_ctrl_c_there_are_a_cursor_an_error_and_no_patches(checkout: Path) -> None:
    many = SPLIT | {f"t{number}": "train" for number in range(40)}
    write_dataset(checkout / "data" / "mine", many, size=768)
    status, shown = run_in_terminal(
        *("-m", "stages.make_patches"),
        cwd=checkout,
        interrupt=lambda shown: "Cutting" in shown,
        PYTHONPATH=str(checkout),
    )
    assert status == 130
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    (line,) = (line for line in screen(shown) if line != "^C")
    assert line.endswith("error: stopped by SIGINT; run the same command again to continue")
    assert not [*(checkout / "patches").iterdir()]


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "patch size": (lambda root: set_params(root, dataset="mine", patch_size=100), "patch_size"),
    "dataset": (lambda root: set_params(root, dataset="nowhere"), "data/nowhere"),
    "nudges": (lambda root: (root / "data/mine/nudges.csv").unlink(), "data/mine/nudges.csv"),
    "mask": (lambda root: (root / "data/mine/msks/c.tif").unlink(), "data/mine/msks"),
    "empty image": (
        lambda root: (root / "data/mine/imgs/c.tif").write_bytes(b""),
        "data/mine/imgs/c.tif",
    ),
    "cut image": (lambda root: cut(root / "data/mine/imgs/c.tif"), "data/mine/imgs/c.tif"),
    "cut mask": (lambda root: cut(root / "data/mine/msks/c.tif"), "data/mine/msks/c.tif"),
}


@pytest.mark.parametrize(
    "mistake", cases(MISTAKES, whole=MISTAKES.keys() - {"patch size", "cut image"})
)
def test_a_user_error_is_one_line_and_status_2(checkout: Path, mistake: str) -> None:
    spoil, named = MISTAKES[mistake]
    spoil(checkout)
    done = run_stage(checkout)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((checkout / "patches").glob("*"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
