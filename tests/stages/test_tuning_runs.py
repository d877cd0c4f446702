"""What stands before tuning: what cannot be tuned here is said before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import PARAMS, git

from roofseg.core.errors import UserError
from roofseg.recipe.params import parse_params
from stages.tuning_runs import check_final, make_ready, read_tuning


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


def test_what_is_final_has_to_be_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment stops at it, but not before it has trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "start")
    check_final(["small", "smaller"], parse_params(PARAMS))
    final = parse_params(PARAMS.replace("  small: null", "  small: 0123456789ab"))
    with pytest.raises(
        UserError, match=r"final\.small: found '0123456789ab', but None in the curr"
    ):
        check_final(["smaller", "small"], final)
    check_final(["smaller"], final)  # nothing of the other is run
