"""Tables and numbers as text: CSV for programs, Markdown for readers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from roofseg.core.files import write_text


def write_csv(path: Path, table: pd.DataFrame, float_format: str = "%.6g") -> None:
    """Write a table as CSV without its index; the file is complete or not written at all."""
    write_text(path, table.to_csv(index=False, float_format=float_format, lineterminator="\n"))


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with ``digits`` decimals and a minus sign; None and NaN are a dash."""
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as ``1 tile`` and ``2 tiles``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def bounds(low: float, high: float) -> str:
    """Format the ends of an interval in brackets; empty if ``low`` is NaN."""
    return "" if low != low else f"[{number(low)}, {number(high)}]"


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()
) -> list[str]:
    """The lines of a Markdown table, padded so that the source is aligned too.

    Args:
        header: the column headings.
        rows: the cells of each row. Bars in cells are escaped; other markup is kept.
        left: headings of the columns to align to the left; the others are aligned to the right.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    columns = [(width, name in left) for width, name in zip(widths, header, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, (width, to_left) in zip(row, columns, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if to_left else "-" * (width - 1) + ":" for width, to_left in columns]
    return [line(cells[0]), line(rule), *map(line, cells[1:])]
