"""The table of folds, and the split that each fold makes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofseg.core.errors import UserError
from roofseg.studies.folds import fold_split, read_folds, write_folds


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
    path, folds = tmp_path / "folds.csv", {"b": 2, "007": 1, "a": 1}
    write_folds(path, folds, [["007", "a"], ["b"]])
    assert path.read_text() == "tile,fold,group\n007,1,1\na,1,1\nb,2,2\n"
    assert read_folds(path) == folds


@pytest.mark.parametrize("text", [None, "", "tile,fold\na,1\n", "tile,fold,group\na,one,1\n"])
def test_another_table_is_an_error_with_a_remedy(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "folds.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"folds\.csv: expected a table .*`roofseg studies folds`"):
        read_folds(path)
