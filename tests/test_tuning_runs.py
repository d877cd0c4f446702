"""What stands before tuning: what cannot be tuned here is said before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import PARAMS

from roofseg.errors import UserError
from roofseg.recipe import parse_params
from stages.tuning_runs import make_ready, read_tuning


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"studies/tuning\.yaml: cannot be read .*studies/profiles/"
    ):
        read_tuning(parse_params(PARAMS))


def test_optuna_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = parse_params(PARAMS.replace("devices: 1", "devices: 2").replace("size: 2", "size: 4"))
    with pytest.raises(UserError, match=r"params\.yaml: devices: found 2; --engine optuna trains"):
        make_ready(["small"], params)
    assert not list(tmp_path.iterdir())
