"""`roofseg check-data`, with real DVC."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from graph import ROOT
from intake_files import write_pairs
from project import environment
from pseudo_terminal import lines_of, run_in_terminal, screen
from tiny_dataset import tile_pixels, write_raster

from roofseg.core.errors import UserError


@pytest.fixture
def oslo(project: Path, tmp_path: Path, roofseg: Callable[..., None]) -> Path:
    images, masks = write_pairs(tmp_path)
    roofseg("new-dataset", "oslo", "--imgs", images, "--msks", masks, "--base", "sample")
    return project / "data" / "oslo"


@pytest.mark.whole
def test_status_0_without_problems_and_2_with_all_of_them(oslo: Path, project: Path) -> None:
    def check(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "roofseg", "check-data", name]
        env = {**environment(), "PYTHONPATH": str(ROOT / "src")}
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)

    done = check("oslo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("data/oslo: 6 tiles, no problems\n")
    assert len(done.stdout.splitlines()) == 8

    (oslo / "imgs" / "a.tif").unlink()
    write_raster(oslo / "msks" / "b.tif", tile_pixels(0, 96)[0])
    done = check("oslo")
    assert done.returncode == 2
    assert done.stderr.startswith("error: 3 problems:\n  data/oslo/imgs: no file for the tile a")
    assert "Traceback" not in done.stderr
    assert check("nosuch").stderr.startswith("error: data/nosuch: no such folder")


@pytest.mark.whole
def test_a_terminal_of_80_columns_shows_a_bar_and_then_the_table(oslo: Path, project: Path) -> None:
    command = ("-m", "roofseg", "check-data", "oslo")
    status, shown = run_in_terminal(*command, cwd=project, NO_COLOR="1")
    assert status == 0
    assert any(re.match(r"Checking tiles \S+ \d/6 0:\d\d", line) for line in lines_of(shown))
    assert max(map(len, lines_of(shown))) <= 80
    left = screen(shown)
    assert left[0].startswith("tile  split")
    assert left[-1] == "data/oslo: 6 tiles, no problems"
    assert len(left) == 8


def test_the_limit_of_expansion_can_be_set(
    oslo: Path, roofseg: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roofseg.intake.inspect.BOMB_BYTES", 1000)
    with pytest.raises(UserError, match="12 problems"):
        roofseg("check-data", "oslo", "--max-expansion", "0.01")
    roofseg("check-data", "oslo")
