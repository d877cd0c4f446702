"""Words and cells that several sections of the report share."""

from __future__ import annotations

from collections.abc import Sequence

from roofseg.pages.page import Cell, Key
from roofseg.report import charts
from roofseg.report.results import Attempt, Results


def name_cell(attempt: Attempt) -> Cell:
    """An attempt's name as the first cell of a row."""
    return Cell(attempt.name, "no SAM weights" if attempt.recipe.without_sam else "", code=True)


def legend(results: Results) -> list[Key]:
    """The colours of all attempts."""
    return [Key(charts.series(each.index), each.label) for each in results.in_order]


def joined(words: Sequence[str]) -> str:
    """``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
