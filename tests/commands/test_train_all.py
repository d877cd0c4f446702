"""`roofseg train-all`: real DVC processes at once, on stages that take a moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import torch
from graph import ROOT
from processes import started, wait_until
from project import PARAMS, environment
from ruamel.yaml import YAML

Start = Callable[..., subprocess.Popen[str]]

# Each attempt runs train.sh, which a test writes.
PIPELINE = """\
stages:
  make_patches:
    cmd: sh make_patches.sh
    deps:
      - tiles
    outs:
      - patches
  train:
    foreach: ${attempts}
    do:
      cmd: sh train.sh ${key}
      params:
        - attempts.${key}
      deps:
        - patches
        - weights/${item.prior}.safetensors
      outs:
        - models/${key}
"""
PRIORS = """\
stages:
  prior:
    foreach: [scratch]
    do:
      cmd: echo none > ${item}.safetensors
      outs:
        - ${item}.safetensors
"""
TRAIN = "mkdir -p models; echo $1 > models/$1"
# Waits until this many attempts have begun.
MEET = """\
mkdir -p begun
touch begun/$1
while [ $(ls begun | wc -l) -lt %d ]; do sleep 0.1; done
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a project, the current folder, with these attempts and this way to train them."""
    monkeypatch.chdir(tmp_path)

    def make(attempts: list[str], train: str, make_patches: str = "echo cut > patches") -> Path:
        head, _, _ = PARAMS.partition("attempts:\n")
        block = "    architecture: unet\n    encoder: resnet18\n    prior: scratch\n"
        blocks = "".join(f"  {name}:\n{block}" for name in attempts)
        final = "".join(f"  {name}: null\n" for name in attempts)
        for name, text in {
            "params.yaml": f"{head}attempts:\n{blocks}final:\n{final}",
            "dvc.yaml": PIPELINE,
            "weights/dvc.yaml": PRIORS,
            "train.sh": train,
            "make_patches.sh": make_patches,
            "tiles": "tiles",
        }.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        dvc("init", "--quiet", "--no-scm")
        return tmp_path

    return make


def dvc(*arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(
        command, env=environment(), check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command with these arguments."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            jobs = started(
                [sys.executable, "-m", "roofseg", "train-all", *arguments],
                env={**environment(), "PYTHONPATH": str(ROOT / "src")},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            return stack.enter_context(jobs)

        yield start


def wait_for(jobs: subprocess.Popen[str], pattern: str, count: int) -> list[Path]:
    """The files of that pattern, once there are ``count``."""

    def found() -> list[Path]:
        files = list(Path().glob(pattern))
        return files if len(files) == count else []

    return wait_until(found, lambda: jobs.poll() is None)


def locked() -> dict[str, object]:
    return YAML(typ="safe").load(Path("dvc.lock"))["stages"]


@pytest.mark.whole
def test_attempts_at_once_leave_a_complete_dvc_lock(
    project: Callable[..., Path], start: Start
) -> None:
    """All eight start before the first ends, so they write dvc.lock at about the same time."""
    names = [f"attempt{number}" for number in range(8)]
    project(names, MEET % 8 + TRAIN)
    jobs = start("--jobs", "8")
    out, err = jobs.communicate()
    assert jobs.returncode == 0, out + err
    assert out.endswith("All attempts are trained. `dvc repro` evaluates them.\n")
    assert locked().keys() == {"make_patches", *(f"train@{name}" for name in names)}
    assert "Data and pipelines are up to date." in dvc("repro")
    for name in names:
        assert f"{name} | Running stage 'train@{name}':" in out


@pytest.mark.whole
def test_no_more_attempts_at_once_than_jobs(project: Callable[..., Path], start: Start) -> None:
    project(list("abcd"), MEET % 2 + "until [ -e go ]; do sleep 0.1; done\n" + TRAIN)
    jobs = start("--jobs", "2")
    wait_for(jobs, "begun/*", 2)
    # Without a limit all four attempts would have started by now.
    assert len(psutil.Process(jobs.pid).children()) == 2
    Path("go").touch()
    out, err = jobs.communicate()
    assert jobs.returncode == 0, out + err
    assert len(locked()) == 5


@pytest.mark.whole
def test_a_failed_attempt_stops_no_other(project: Callable[..., Path], start: Start) -> None:
    """It is named at the end, and the same command trains it alone. One job is the default."""
    project(list("ab"), f"[ $1 != a ] || [ -e mended ] || {{ echo 'no luck'; exit 3; }}\n{TRAIN}")
    jobs = start()
    out, err = jobs.communicate()
    assert jobs.returncode == 2
    assert err == "error: failed: a; see the lines that begin with these names\n"
    assert "a | no luck\n" in out
    assert "All attempts are trained" not in out
    assert locked().keys() == {"make_patches", "train@b"}
    Path("mended").touch()
    jobs = start()
    out, err = jobs.communicate()
    assert jobs.returncode == 0, out + err
    assert re.findall(r"Running stage '(.*)'", out) == ["train@a"]


@pytest.mark.whole
def test_nothing_is_trained_without_its_inputs(project: Callable[..., Path], start: Start) -> None:
    project(["a"], TRAIN, make_patches="echo 'no tiles' >&2; exit 2")
    jobs = start("--jobs", "1")
    out, err = jobs.communicate()
    assert jobs.returncode == 2
    assert err == "error: failed: inputs; see the lines that begin with these names\n"
    assert "inputs | no tiles\n" in out
    assert "train@a" not in out


@pytest.mark.whole
def test_data_pulled_in_part_is_enough(project: Callable[..., Path], start: Start) -> None:
    project(["a"], TRAIN)
    dvc("repro", "make_patches", "weights/dvc.yaml:prior@scratch")
    Path("tiles").unlink()
    jobs = start("--jobs", "1", "--allow-missing")
    out, err = jobs.communicate()
    assert jobs.returncode == 0, out + err
    assert re.findall(r"Running stage '(.*)'", out) == ["train@a"]


@pytest.mark.whole
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_attempts(
    project: Callable[..., Path], start: Start, number: signal.Signals
) -> None:
    """They get SIGINT and end in order; none starts afterwards, and none is left running."""
    wait = "trap 'echo in order; exit 130' INT\necho $$ > pid.$1\nwhile :; do sleep 0.1; done\n"
    project(list("abc"), MEET % 2 + wait)
    jobs = start("--jobs", "2")
    pids = wait_for(jobs, "pid.*", 2)
    jobs.send_signal(number)
    out, err = jobs.communicate()
    assert jobs.returncode == 128 + number
    assert err == f"error: stopped by {number.name}; run the same command again to continue\n"
    for name in "ab":
        assert f"{name} | in order\n" in out
    assert "c | " not in out
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


@pytest.mark.whole
def test_by_default_there_is_a_job_for_each_gpu(
    project: Callable[..., Path],
    roofseg: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project(list("ab"), MEET % 2 + TRAIN)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    roofseg("train-all")
    assert len(locked()) == 3


def test_jobs_must_be_one_or_more(
    roofseg: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        roofseg("train-all", "--jobs", "0")
    assert "--jobs: found '0', expected a positive whole number" in capsys.readouterr().err
