"""The file of the spread over seeds: which rows count, and the message of every error in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from roofseg.core.errors import UserError
from roofseg.results.seed_spread import (
    COLUMNS,
    SeedSpread,
    digest_without_seed,
    overrides_text,
    read_seed_spread,
)

RECIPE = {"seed": 42, "epochs": 10, "draws_per_epoch": 40, "lr": 0.001, "split": {"a": "train"}}
OVERRIDES = "epochs 6, draws_per_epoch 24"
HEADER = ",".join(COLUMNS)


def row(attempt: str = "small", digest: str = digest_without_seed(RECIPE, OVERRIDES)) -> str:
    return f'tiny,64,{attempt},4,0.7,0.012,"{OVERRIDES}",{digest}'


def write(folder: Path, *lines: str) -> Path:
    path = folder / "seed_spread.csv"
    path.write_text("\n".join([*lines, ""]))
    return path


def test_overrides_are_readable() -> None:
    assert overrides_text({"epochs": 6, "draws_per_epoch": 24}) == OVERRIDES
    assert overrides_text({}) == ""


@pytest.mark.parametrize("change", [{"seed": 7}, {"epochs": 60}, {"draws_per_epoch": 8}])
def test_a_row_outlives_a_change_of_the_seed_or_of_an_overridden_key(
    tmp_path: Path, change: dict
) -> None:
    path = write(tmp_path, HEADER, row())
    found = read_seed_spread(path, {"small": RECIPE | change, "other": RECIPE})
    assert found == {"small": SeedSpread(4, 0.7, 0.012, OVERRIDES)}


@pytest.mark.parametrize("change", [{"lr": 0.01}, {"split": {"a": "val"}}])
def test_a_row_does_not_outlive_another_change(tmp_path: Path, change: dict) -> None:
    assert read_seed_spread(write(tmp_path, HEADER, row()), {"small": RECIPE | change}) == {}


def test_without_overrides_only_the_seed_is_left_out() -> None:
    assert digest_without_seed(RECIPE, "") == digest_without_seed(RECIPE | {"seed": 1}, "")
    assert digest_without_seed(RECIPE, "") != digest_without_seed(RECIPE | {"epochs": 1}, "")


def test_a_file_without_rows_and_rows_of_other_attempts_give_nothing(tmp_path: Path) -> None:
    assert read_seed_spread(write(tmp_path, HEADER), {"small": RECIPE}) == {}
    assert read_seed_spread(write(tmp_path, HEADER, row("gone")), {"small": RECIPE}) == {}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], "found the columns ''; expected 'dataset,patch_size,"),
        (["attempt,sd", "small,0.1"], "found the columns 'attempt,sd'; expected 'dataset,"),
        ([HEADER, row(), "<<<<<<< HEAD"], "line 3: found '<<<<<<< HEAD'; expected 8 cells"),
        ([HEADER, row().replace("0.012", "")], "line 2: found 'tiny,64,small,4,0.7,,epochs 6"),
        ([HEADER, row().replace("0.012", "nan")], "val_iou and sd between 0 and 1"),
        ([HEADER, row().replace(",4,", ",1,")], "at least 2 seeds"),
    ],
)
def test_a_damaged_file_is_an_error_with_a_remedy(
    tmp_path: Path, lines: list[str], found: str
) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(UserError) as error:
        read_seed_spread(path, {"small": RECIPE})
    assert str(error.value).startswith(f"{path}: ")
    assert found in str(error.value)
    assert f"`git checkout {path}`" in str(error.value)
    assert "studies/dvc.yaml:gather@seeds`" in str(error.value)


def test_a_missing_file_and_one_that_is_not_text_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "seed_spread.csv"
    with pytest.raises(UserError, match=r"seed_spread\.csv: no such file\. Restore .*git checkout"):
        read_seed_spread(path, {})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"seed_spread\.csv: .*decode.*git checkout"):
        read_seed_spread(path, {})
