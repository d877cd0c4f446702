"""The table of folds, and the split that each fold makes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofseg.core.errors import UserError
from roofseg.studies.folds import FoldTable, fold_split, read_folds, remarks, write_folds


@given(st.integers(3, 8), st.integers(1, 4))
def test_a_fold_is_scored_once_and_chooses_once_and_never_both(folds: int, size: int) -> None:
    fold_of = {f"{fold}{tile}": fold for fold in range(1, folds + 1) for tile in range(size)}
    splits = [fold_split(fold_of, fold) for fold in range(1, folds + 1)]
    for tile in fold_of:
        parts = Counter(split[tile] for split in splits)
        assert parts == {"test": 1, "val": 1, "train": folds - 2}
    for fold, split in enumerate(splits, 1):
        assert [tile for tile in fold_of if split[tile] == "test"] == [
            tile for tile in fold_of if fold_of[tile] == fold
        ]


def test_the_folds_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path, of_tile = tmp_path / "folds.csv", {"b": 2, "007": 1, "a": 1}
    folds = FoldTable(of_tile, {"007": None, "a": ["b", "c d"], "b": ["a"]}, 75.0, 4)
    write_folds(path, folds, [["007", "a"], ["b"]])
    rows = [
        "tile,fold,group,touches,side,seed",
        "007,1,1,?,75,4",
        "a,1,1,b/c d,75,4",
        "b,2,2,a,75,4",
    ]
    assert path.read_text().splitlines() == rows
    assert read_folds(path, ["a", "b", "007"]) == folds
    assert read_folds(path).record() == folds.record()
    record = folds.record()
    assert (record["folds"], record["touching"], record["unplaced"]) == (2, 2, 1)
    moved = FoldTable(of_tile | {"a": 2}, folds.touches, 75.0, 4)
    assert moved.record()["sha256"] != record["sha256"]
    first, second, third = remarks(folds)
    assert "touch, so scores may be too high: a and b, a and c d" in first
    assert "is a group of its own: 007" in second
    assert "fewer than 5 folds" in third


def test_folds_of_other_tiles_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    folds = FoldTable({"a": 1, "b": 2, "c": 3}, {"a": [], "b": [], "c": []}, None, 1)
    write_folds(path, folds, [["a"], ["b"], ["c"]])
    for tiles in (["a", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(UserError, match=r"folds\.csv: expected the . tiles .*; found 3, and "):
            read_folds(path, tiles)


@pytest.mark.parametrize("fold", [0, 4])
def test_a_fold_that_does_not_exist_is_an_error(fold: int) -> None:
    with pytest.raises(UserError, match=rf"^--fold: found {fold}; expected 1 to 3"):
        fold_split({"a": 1, "b": 2, "c": 3}, fold)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "tile,fold\na,1\n",
        "tile,fold,group,touches,side,seed\na,one,1,,,1\n",
        "tile,fold,group,touches,side,seed\na,1\n",
        "tile,fold,group,touches,side,seed\na,1,1,,,1\nb,3,2,,,1\n",
    ],
)
def test_another_table_is_an_error_with_a_remedy(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "folds.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"folds\.csv: expected a table .*`roofseg studies folds`"):
        read_folds(path)
