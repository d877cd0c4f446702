from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tiny_dataset import write_dataset

from roofseg.core.errors import UserError
from roofseg.recipe.split import read_nudges, read_split

SPLIT = {"b": "train", "a": "train", "c": "val", "d": "test"}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data" / "mine", SPLIT, size=32)


def test_split_and_nudges_are_read(dataset: Path) -> None:
    (dataset / "nudges.csv").write_text("tile,row,col\na,0,12\n")
    assert read_split(dataset) == SPLIT
    assert read_nudges(dataset) == {"a": (0, 12)}


def test_tables_saved_by_spreadsheets_are_accepted(dataset: Path) -> None:
    text = "\ufefftile, split ,note\r\na , train,x\r\n\r\n007,val,\r\nNA,test,\r\n"
    (dataset / "split.csv").write_bytes(text.replace(" split ", "split").encode())
    assert read_split(dataset) == {"a": "train", "007": "val", "NA": "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tile,set\na,train\n", "lacks split; expected `tile,split`"),
        ("", "lacks tile, split"),
        ("tile,split\na\n", "line 2: a value is missing"),
        ("tile,split\na,training\n", "line 2: tile a is in the split 'training'; expected one"),
        ("tile,split\na,train\nb,val\na,test\n", "line 4: tile a is listed in train and in te"),
        ("tile,split\na,train\na,train\n", "line 3: tile a is listed twice"),
        ("tile,split\na,train\nb,test\n", "no tile is in the split val"),
        ("tile,split\n", "no tile is in the split train"),
        ('tile,split\n"a,train\n', "not a CSV"),
    ],
)
def test_a_broken_split_names_file_and_line(dataset: Path, text: str, message: str) -> None:
    (dataset / "split.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_split(dataset)
    assert str(dataset / "split.csv") in str(caught.value)


def test_a_table_in_another_encoding_is_an_error(dataset: Path) -> None:
    (dataset / "split.csv").write_bytes("tile,split\nmünchen,train\n".encode("latin-1"))
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_split(dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tile,row\na,1\n", "lacks col"),
        ("tile,row,col\na,1,x\n", "line 2: tile a has row '1' and col 'x'"),
        ("tile,row,col\na,-1,2\n", "row '-1'"),
        ("tile,row,col\na,1.5,2\n", "whole numbers"),
        ("tile,row,col\na,1,2\na,1,2\n", "line 3: tile a is listed twice"),
    ],
)
def test_broken_nudges_name_file_and_line(dataset: Path, text: str, message: str) -> None:
    (dataset / "nudges.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_nudges(dataset)
    assert str(dataset / "nudges.csv") in str(caught.value)


def test_the_remedy_for_missing_nudges_works_as_printed(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "with space", SPLIT, size=32)
    (folder / "nudges.csv").unlink()
    with pytest.raises(UserError, match=r"nudges\.csv: no such file") as caught:
        read_nudges(folder)
    command = str(caught.value).split("`")[1]
    subprocess.run(["sh", "-c", command], check=True)
    assert read_nudges(folder) == {}


def test_missing_split_and_missing_dataset(dataset: Path, tmp_path: Path) -> None:
    (dataset / "split.csv").unlink()
    with pytest.raises(UserError, match=r"split\.csv: no such file.*printf"):
        read_split(dataset)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_split(tmp_path / "nowhere")
