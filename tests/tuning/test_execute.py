"""The results of finished experiments; git makes their commits here, without DVC."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import PARAMS, environment, git

from roofseg.core.errors import UserError
from roofseg.recipe.parsing import parse_params
from roofseg.tuning import dvc_queue
from roofseg.tuning.execute import execute, read_results, read_val_iou
from roofseg.tuning.grid import Run

RUNS = [Run("small", f"tune-small-{lr}", {"lr": lr}, {"lr": lr}) for lr in (0.1, 0.2, 0.3)]
OTHER = Run("smaller", "tune-smaller-1", {"lr": 0.1}, {"lr": 0.1})
TILES = "split,tile,tp,fp,fn\nval,01,6,1,3\ntest,02,1,1,1\nval,NA,8,1,1\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which the first two of `RUNS` are finished; the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    git(tmp_path, "init", "-q")
    subprocess.run(["dvc", "init", "-q"], check=True)
    folder = tmp_path / "metrics" / "attempts" / "small"
    folder.mkdir(parents=True)
    for run, iou in zip(RUNS[:2], (0.7, 0.6), strict=True):
        (folder / "scores.json").write_text(json.dumps({"val": {"iou": iou}}))
        (folder / "tiles.csv").write_text(TILES)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", run.name)
        commit = dvc_queue.head()
        git(tmp_path, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{run.name}", commit)
    return tmp_path


@pytest.mark.whole
def test_results_are_read_from_experiments(project: Path) -> None:
    results = read_results([RUNS[2], OTHER, *RUNS[:2]])
    assert [(result.run, result.state) for result in results] == [
        (RUNS[2], "not queued"),
        (OTHER, "not queued"),
        (RUNS[0], "done"),
        (RUNS[1], "done"),
    ]
    counts = results[2].counts
    assert counts is not None
    assert counts[["tile", "tp", "fp", "fn"]].to_numpy().tolist() == [
        ["01", 6, 1, 3],
        ["NA", 8, 1, 1],
    ]
    assert results[0].counts is None


def test_the_val_iou_is_that_of_the_experiment(project: Path) -> None:
    (project / "metrics/attempts/small/scores.json").write_text("the workspace's")
    finished = dvc_queue.finished()
    assert [read_val_iou(run, finished) for run in RUNS] == [0.7, 0.6, None]


@pytest.mark.whole
def test_finished_runs_are_reported_and_not_repeated(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next batch is taken only after the lines of the previous one were printed."""

    def batches() -> Iterator[list[Run]]:
        yield [RUNS[0]]
        assert "[1/2]" in capsys.readouterr().out
        yield [RUNS[1]]

    assert execute(batches(), parse_params(PARAMS), total=2, jobs=1) == []
    assert capsys.readouterr().out == "[2/2] small lr 0.2: val IoU 0.6000, already finished\n"
    assert dvc_queue.status() == dvc_queue.Status({}, active=0, idle=0)


@pytest.mark.whole
def test_a_run_that_cannot_be_queued_is_an_error(project: Path) -> None:
    with pytest.raises(UserError, match=r"^`dvc exp run` fails: "):
        execute([[RUNS[2]]], parse_params(PARAMS), total=1, jobs=1)
