"""A small project for tests of the whole pipeline: the code of this checkout, tiny tiles, DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from graph import ROOT
from processes import started
from tiny_dataset import write_dataset

from roofseg.results.seed_spread import COLUMNS
from roofseg.results.tables import write_csv

PARAMS = """\
dataset: tiny
patch_size: 64
min_building_fraction: 0.01
sources: {generated: [], downloaded: []}
priors: {known: [scratch], hub: {}, files: {}, models: {}}
seed: 1
epochs: 2
draws_per_epoch: 4
batch_size: 2
lr: 0.001
weight_decay: 0.0001
augmentation: light
dropout: 0.1
bce_weight: 0.5
scheduler: plateau
plateau_factor: 0.5
plateau_patience: 3
early_stopping_patience: 4
freeze_epochs: 0
encoder_lr_factor: 1.0
gradient_clip: 1.0
ema_decay: null
precision: auto
augmentation_pool: null
algorithms: deterministic
evaluate_full_tiles: false
device: cpu
devices: 1
strategy: auto
workers: 0
overlay_every: 1
feature_cache_gb: 1
attempts:
  small:
    architecture: unet
    encoder: tu-mobilenetv3_small_050
    prior: scratch
  smaller:
    architecture: deeplabv3plus
    encoder: tu-mobilenetv3_small_050
    prior: scratch
    lr: 0.0003
final:
  small: null
  smaller: null
"""
SPLIT = {"a": "train", "b": "train", "c": "val", "d": "test"}

# Outputs that hold times, which differ between runs; and tables with some columns of times.
TIMES = ("times.json", "report.html", "report.md")
TABLES = ("metrics/leaderboard.csv", "metrics/leaderboard.json")


def git(folder: Path, *command: str) -> None:
    """Run git in ``folder`` with a user name, which the machine may not have set."""
    who = [
        "-c",
        "user.email=test@example.org",
        "-c",
        "user.name=test",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


class Project:
    """A git and DVC repository in ``folder``; commands run with this Python's environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> Project:
        """Copy the tracked and new files of this checkout, add tiles and parameters, and commit."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
        for name in filter(None, listed):
            # Leave out results: they belong to the recipes of this checkout.
            if (ROOT / name).is_file() and not name.startswith(("metrics/", "plots/", "report.")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        for lock in folder.rglob("dvc.lock"):
            lock.unlink()
        project = cls(folder)
        # The leaderboard depends on this file; only the seeds study adds rows.
        write_csv(folder / "metrics" / "seed_spread.csv", pd.DataFrame(columns=COLUMNS))
        write_dataset(folder / "data" / "tiny", SPLIT, size=96)
        (folder / "params.yaml").write_text(PARAMS)
        project.run("git init -q -b main")
        project.run("git config user.email test@example.org")
        project.run("git config user.name test")
        project.run("dvc add -q data/tiny/imgs data/tiny/msks")
        project.commit("start")
        return project

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the project; output is text."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with started(command, shell=True, cwd=self.folder, env=environment(), **pipes) as process:
            out, errors = process.communicate()
        done = subprocess.CompletedProcess(command, process.returncode, out, errors)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def roofseg(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a subcommand of `roofseg`, with the project's own code."""
        return self.run(f"PYTHONPATH=src python -m roofseg {command}")

    def commit(self, message: str) -> None:
        self.run("git add -A")
        self.run(f"git commit -q -m '{message}'")

    def replace(self, name: str, old: str, new: str) -> None:
        """Edit a file: ``old`` must be there."""
        text = (self.folder / name).read_text()
        if old not in text:
            raise AssertionError(f"{name} does not hold {old!r}")
        (self.folder / name).write_text(text.replace(old, new))

    def copy(self, folder: Path) -> Project:
        """Copy the whole folder, with DVC's cache and untracked files."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def clone(self, folder: Path) -> Project:
        self.run(f"git clone -q . '{folder}'")
        clone = Project(folder)
        clone.run("git config user.email test@example.org")
        clone.run("git config user.name test")
        return clone


def environment() -> dict[str, str]:
    """The environment of a user who has this Python's virtual environment active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Several tests run at once on few cores: waiting threads must not spin.
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
