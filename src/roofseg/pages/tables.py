"""Tables as text: CSV for programs, Markdown for readers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from roofseg.core.files import write_text


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, numbers to six digits, whole or not at all."""
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def markdown_table(table: pd.DataFrame, left: Collection[str] = ()) -> list[str]:
    """The lines of a table in Markdown, padded so that it reads well as plain text too.

    Args:
        table: cells as they are to be shown; its columns are the heading.
        left: columns to align to the left; the others are aligned to the right.
    """
    cells = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    is_left = [name in left for name in table.columns]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, is_left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if to_left else "-" * (width - 1) + ":"
        for width, to_left in zip(widths, is_left, strict=True)
    ]
    return [line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])]
