from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from roofseg.results.tables import counted, markdown_table, number, write_csv


def test_csv_has_six_digits_and_no_index(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a", "NA"], "value": [1 / 3, float("nan")], "n": [1, 2000000]})
    write_csv(tmp_path / "new" / "table.csv", table)
    text = (tmp_path / "new" / "table.csv").read_bytes()
    assert text == b"name,value,n\na,0.333333,1\nNA,,2000000\n"


def test_a_count_of_one_is_singular() -> None:
    assert [counted(count, "tile") for count in (0, 1, 2)] == ["0 tiles", "1 tile", "2 tiles"]


def test_markdown_source_is_aligned() -> None:
    lines = markdown_table(["model", "n"], [["a", "1"], ["long|name", "20"]], {"model"})
    assert lines == [
        "| model      |   n |",
        "| ---------- | --: |",
        "| a          |   1 |",
        "| long\\|name |  20 |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.78449, "0.784"), (-0.05, "\N{MINUS SIGN}0.050"), (None, "\N{EN DASH}")],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown
