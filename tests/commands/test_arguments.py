"""One rule for the paths that a user gives: every parser has it, and every variable that is a path.

The other variables are tested where they are read: INRIA_SOURCE in tests/stages.
"""

from __future__ import annotations

import argparse
import importlib
from argparse import Action, ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path

import pytest
from graph import ROOT
from hypothesis import given
from hypothesis import strategies as st

from roofseg.cli import make_parser
from roofseg.commands.arguments import local_path, raster_name
from roofseg.core.files import user_path
from roofseg.core.terminal import ArgumentParser
from stages import state_root

PATHS = (local_path, raster_name, user_path)
# Arguments that are any text and no path. An argument that is missing here must have a type.
WORDS = {
    *("roofseg new-dataset name", "roofseg new-dataset base", "roofseg new-dataset layer"),
    "roofseg new-dataset areas_layer",
    *("roofseg check-data name", "roofseg profile name", "roofseg finalize attempts"),
    "roofseg predict address",
    *("python -m stages.train attempt", "python -m stages.evaluate attempt"),
    *("python -m stages.study_recipe attempt", "python -m stages.study_run attempt"),
    *("python -m stages.study_run study", "python -m stages.study_run run"),
    *("python -m stages.fold_run study", "python -m stages.fold_run attempt"),
    *("python -m stages.fold_run run", "python -m stages.divide_folds study"),
    *("python -m stages.own_prior name", "python -m stages.model_prior name"),
}
STAGES_WITH_ARGUMENTS = sorted(
    path.stem for path in (ROOT / "stages").glob("*.py") if "ArgumentParser(" in path.read_text()
)


class _ParserMadeError(Exception):
    """Holds the parser that was made."""


def _raise_parser(parser: argparse.ArgumentParser) -> None:
    raise _ParserMadeError(parser)


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands and stages."""
    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()
    for name in STAGES_WITH_ARGUMENTS:
        stage = importlib.import_module(f"stages.{name}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ArgumentParser, "parse_args", _raise_parser)
            with pytest.raises(_ParserMadeError) as caught:
                stage.main()
        yield caught.value.args[0]


def arguments() -> dict[str, Action]:
    """All arguments that have a value, by "PROGRAM NAME"."""
    return {
        f"{parser.prog} {action.dest}": action
        for parser in parsers()
        for action in parser._actions
        if action.nargs != 0
    }


ARGUMENTS = arguments()


def test_every_argument_has_a_type_or_is_known_to_be_no_path() -> None:
    untyped = {name for name, it in ARGUMENTS.items() if it.type is None and it.choices is None}
    assert untyped == WORDS
    assert not [name for name, action in ARGUMENTS.items() if action.type in (Path, str)]


@pytest.mark.parametrize("name", [name for name, it in ARGUMENTS.items() if it.type in PATHS])
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("~/a b/x.tif", "HOME/a b/x.tif"),
        ("~", "HOME"),
        ("~nobody-here/x.tif", "~nobody-here/x.tif"),
        ("a~/~/x", "a~/~/x"),
        ("/x", "/x"),
        ("../x", "../x"),
    ],
)
def test_the_home_folder_is_found_in_every_path(
    name: str, given: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/of me")
    assert str(ARGUMENTS[name].type(given)) == found.replace("HOME", "/home/of me")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("GPKG:~/a b.gpkg:roofs~", "GPKG:HOME/a b.gpkg:roofs~"),
        ('NETCDF:"~/x.nc":band', 'NETCDF:"HOME/x.nc":band'),
        ("GTIFF_DIR:1:~/x.tif", "GTIFF_DIR:1:HOME/x.tif"),
    ],
)
def test_the_home_folder_is_found_in_the_name_of_one_of_several_rasters(
    given: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/of me")
    assert raster_name(given) == found.replace("HOME", "/home/of me")


def test_the_paths_are_those_that_we_know() -> None:
    """So the test above tests something."""
    assert {name for name, action in ARGUMENTS.items() if action.type in PATHS} == {
        *("roofseg new-dataset imgs", "roofseg new-dataset msks", "roofseg new-dataset split"),
        "roofseg new-dataset areas",
        *("roofseg predict inputs", "roofseg predict model", "roofseg predict out"),
        *("roofseg export model", "roofseg export out"),
        "python -m stages.study_recipe prior",
    }


def test_the_home_folder_is_found_in_the_folder_of_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of me")
    monkeypatch.setenv("ROOFSEG_STATE_DIR", "~/states")
    assert state_root() == Path("/home/of me/states")


@given(
    st.sampled_from(["s3://", "https://", "gs://", "/vsizip/", "/vsicurl/https://", "zip://~/"]),
    st.text("~/a .", max_size=8),
)
def test_addresses_stay_as_they_are_and_are_no_paths_of_this_machine(start: str, rest: str) -> None:
    address = start + rest
    assert raster_name(address) == address
    with pytest.raises(ArgumentTypeError, match="expected a path on this machine"):
        local_path(address)


def test_an_empty_path_is_an_error_and_not_the_current_folder() -> None:
    with pytest.raises(ArgumentTypeError, match="found '', expected a path on this machine"):
        local_path("")
    assert raster_name("") == ""  # `list_inputs` says what is wrong
