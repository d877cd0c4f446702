from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from graph import ROOT
from tiers import cases

from roofseg import cli
from roofseg.version import VERSION

pytestmark = pytest.mark.usefixtures("signal_handlers")


class TestCommand:
    def test_without_a_subcommand_it_lists_the_subcommands(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cli.main([])
        shown, errors = capsys.readouterr()
        for name, command in cli.COMMANDS.items():
            summary = (command.__doc__ or "").partition("\n")[0]
            assert f"\n  {name:13}  {summary}\n" in shown
        assert "First, in a clone of the repository, `make repro` runs" in shown
        assert errors == ""

    def test_it_shows_its_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            cli.main(["--version"])
        assert capsys.readouterr().out == f"roofseg {VERSION}\n"

    @pytest.mark.parametrize("command", ["", *sorted(cli.COMMANDS)])
    def test_help_fits_a_terminal_and_ends_with_the_exit_statuses(
        self, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit, match="0"):
            cli.main([*filter(None, [command]), "--help"])
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80
        before, last = shown.rstrip().rsplit("\n\n", 1)
        assert " ".join(last.split()) == cli.EXIT_STATUS
        assert "Exit status:" not in before

    def test_help_keeps_the_lines_of_examples(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            cli.main(["studies", "--help"])
        assert "\n  roofseg studies budget " in capsys.readouterr().out

    @pytest.mark.parametrize("command", sorted(cli.COMMANDS))
    def test_a_wrong_option_is_one_line_that_names_the_help_of_the_command(
        self, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        required = {
            "new-dataset": ["oslo", "--imgs", "i", "--msks", "m"],
            "check-data": ["oslo"],
            "profile": ["oslo"],
            "predict": ["a.tif", "--model", "m", "--out", "o"],
            "export": ["--model", "m", "--out", "o"],
        }
        with pytest.raises(SystemExit, match="2"):
            cli.main([command, *required.get(command, []), "--wrong"])
        assert capsys.readouterr().err == (
            f"error: unrecognized arguments: --wrong. See `roofseg {command} --help`.\n"
        )

    @pytest.mark.parametrize("command", sorted(cli.COMMANDS.keys() - cli.RUN_ANYWHERE))
    def test_outside_a_project_it_says_in_one_line_what_is_missing(
        self,
        command: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        required = {"new-dataset": ["oslo", "--imgs", "i", "--msks", "m"]}
        required |= {name: ["oslo"] for name in ("check-data", "profile", "finalize")}
        arguments = [command, *required.get(command, [])]
        with pytest.raises(SystemExit, match="2"):
            cli.main(arguments)
        message = capsys.readouterr().err
        assert message.startswith(f"error: {tmp_path}: no dvc.yaml here. Run this command in the")
        assert message.count("\n") == 1
        assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    cases(
        ["", "--help", "predict --help", "nosuch", "train-all --jobs 0"],
        whole=["", "--help", "predict --help", "train-all --jobs 0"],
    ),
)
def test_help_and_wrong_arguments_do_not_wait_for_torch(arguments: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "roofseg", *arguments.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "roofseg.cli" in imported
    assert not {"torch", "lightning", "onnxruntime", "ray"} & imported
    assert done.returncode == (2 if "\nerror: " in done.stderr else 0)


# Runs every command, in a process of its own since an installed guard cannot be removed. In its
# place stands a function that tries to open files, and prints those that it could open.
OPENER = """
import os, sys
from pathlib import Path
from roofseg import cli
from roofseg.core.guard import SealedTestError

def main(args):
    for path in sys.argv[1:]:
        try:
            Path(path).read_bytes()
        except SealedTestError:
            continue
        print(args.command, path)

for name, command in cli.COMMANDS.items():
    command.add_arguments, command.main = lambda parser: None, main
    if not os.fork():
        cli.main([name])
        sys.exit()
    print(name, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_only_commands_that_need_them_can_open_tiles_and_test(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    paths = ["data/x/imgs/a.tif", "data/x/msks/a.tif", "patches/test/a.png"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    done = subprocess.run(
        [sys.executable, "-c", OPENER, *paths],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    for command in cli.COMMANDS:
        said = [
            line.split()[1] for line in done.stdout.splitlines() if line.startswith(command + " ")
        ]
        if command in {"new-dataset", "check-data", "predict"}:
            assert said == [*paths, "0"]
        else:
            assert said == ["1"]
            assert f"SealedTestError: roofseg {command} opened" in done.stderr
