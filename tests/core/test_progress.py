"""Progress and messages, in a terminal and without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from graph import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pseudo_terminal import ESCAPE, lines_of, run_in_terminal, screen

from roofseg.core import progress
from roofseg.core.progress import LINE_S, LINES, bar, silent, track
from roofseg.core.terminal import print_error, warn

LONG = "a sentence of many words that no terminal shows in a single line of text, " * 3
WORK = f"""
import time
from roofseg.core.progress import bar, track
from roofseg.core.terminal import print_error, warn

for item in track(range(6), "Counting sheep, of which there are very many"):
    time.sleep(0.06)
    if item == 3:
        print("sheep three")
        warn({LONG!r})
print_error("no more sheep")
"""
HELD_UP = """
from pathlib import Path
from roofseg.core.entry_point import entry_point
from roofseg.core.errors import UserError
from roofseg.core.progress import track

with entry_point("test", project=Path(), reads_tiles=True):
    for item in track(range(6), "Counting"):
        raise UserError("a wolf")
"""


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress, "monotonic", lambda: self.now)


class TestInATerminal:
    def test_a_bar_is_drawn_in_80_columns_and_disappears(self, tmp_path: Path) -> None:
        status, shown = run_in_terminal("-c", WORK, cwd=tmp_path)
        assert status == 0
        assert max(map(len, lines_of(shown))) <= 80
        assert any(
            line.startswith("Counting sheep, of which …") and "/6 " in line
            for line in lines_of(shown)
        )
        left = screen(shown)
        assert left[0] == "sheep three"
        assert left[1].startswith("warning: a sentence of many words")
        assert left[-1] == "error: no more sheep"
        assert not any("Counting" in line for line in left)
        assert " ".join(left[1:-1]) == f"warning: {LONG}".strip()
        assert "\x1b[1;33mwarning:" in shown
        assert "\x1b[1;31merror:" in shown

    def test_the_cursor_comes_back(self, tmp_path: Path) -> None:
        for code in (WORK, HELD_UP):
            _, shown = run_in_terminal("-c", code, cwd=tmp_path)
            assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1

    def test_an_error_in_the_loop_leaves_the_error_alone(self, tmp_path: Path) -> None:
        status, shown = run_in_terminal("-c", HELD_UP, cwd=tmp_path)
        assert (status, screen(shown)) == (2, ["error: a wolf"])

    @pytest.mark.whole
    def test_no_color(self, tmp_path: Path) -> None:
        _, shown = run_in_terminal("-c", WORK, cwd=tmp_path, NO_COLOR="1")
        colours = [code for code in ESCAPE.findall(shown) if code.endswith("m")]
        assert not any(part in code for code in colours for part in ("3", "4"))
        assert any("/6 " in line for line in lines_of(shown))
        _, shown = run_in_terminal("-c", WORK, cwd=tmp_path, NO_COLOR="")
        assert "\x1b[1;31merror:" in shown

    def test_a_terminal_that_cannot_draw_gets_plain_lines(self, tmp_path: Path) -> None:
        status, shown = run_in_terminal("-c", WORK, cwd=tmp_path, TERM="dumb")
        assert status == 0
        assert shown.replace("\r\n", "\n") == (
            f"sheep three\nwarning: {LONG}\nerror: no more sheep\n"
        )

    def test_what_goes_to_a_file_does_not_go_to_the_terminal(self, tmp_path: Path) -> None:
        code = f"import sys\nsys.stdout = open('out.txt', 'w')\n{WORK}"
        _, shown = run_in_terminal("-c", code, cwd=tmp_path)
        assert (tmp_path / "out.txt").read_text() == "sheep three\n"
        assert "sheep three" not in shown


class TestWithoutATerminal:
    def test_short_work_and_messages_are_plain(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", WORK],
            env={"PYTHONPATH": str(ROOT / "src"), "FORCE_COLOR": "1"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "sheep three\n")
        assert done.stderr == f"warning: {LONG}\nerror: no more sheep\n"

    def test_long_work_prints_a_few_lines(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clock = Clock(monkeypatch)
        for _ in track(range(4), "Training"):
            clock.now += 1800
        assert capsys.readouterr().err == (
            "Training: 1 of 4, 30:00, 1:30:00 left\n"
            "Training: 2 of 4, 1:00:00, 1:00:00 left\n"
            "Training: 3 of 4, 1:30:00, 30:00 left\n"
            "Training: 4 of 4, 2:00:00\n"
        )

    @given(st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 100))
    def test_lines_are_few_and_the_last_says_that_all_is_done(
        self, total: int, done: int, step: float
    ) -> None:
        done = min(done, total)
        with pytest.MonkeyPatch.context() as monkeypatch:
            clock, lines = Clock(monkeypatch), list[str]()
            monkeypatch.setattr(
                progress, "print", lambda line, **_: lines.append(line), raising=False
            )
            with bar("Work", total, done=done) as shown:
                for _ in range(total - done):
                    clock.now += step
                    shown.advance()
                    shown.update(description="Work", done=shown.done)  # says nothing new
        assert len(lines) <= LINES + 1
        assert not lines or lines[-1].startswith(f"Work: {total} of {total}, ")
        assert bool(lines) == (round(clock.now, 6) >= LINE_S)

    def test_work_that_prints_its_own_lines_gets_no_others(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clock = Clock(monkeypatch)
        with bar("Tuning", 2, lines=False) as shown:
            clock.now += 1000
            shown.advance()
        assert capsys.readouterr() == ("", "")

    def test_what_an_earlier_run_did_does_not_count_for_the_time_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock(monkeypatch)
        with bar("Epoch", 100, done=50, lines=False) as shown:
            assert shown.times == "0:00"
            clock.now += 60
            shown.advance(10)
            assert shown.times == "1:00, 4:00 left"

    def test_silent_gives_the_items(self) -> None:
        assert list(silent([1, 2], "Counting")) == [1, 2]

    def test_messages(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_error(f"2 problems:\n  {LONG}")
        warn("x" * 200)
        assert capsys.readouterr() == ("", f"error: 2 problems:\n  {LONG}\nwarning: {'x' * 200}\n")
