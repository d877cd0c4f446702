"""The report's section on the differences between attempts, and the verdict on every pair."""

from __future__ import annotations

from roofseg.metrics import SCORED_SPLITS
from roofseg.pages.page import Cell, Figure, Section, Table
from roofseg.report import charts
from roofseg.report.attempts import Attempt
from roofseg.report.headline import chart_note, name_cell, single_tile_note
from roofseg.report.leaderboard import Leaderboard
from roofseg.results.disclaimers import SEALED
from roofseg.results.intervals import Interval
from roofseg.results.tables import bounds, number


def against_leader(board: Leaderboard) -> Section:
    """The difference of each attempt to the leader and of every other pair; no blocks for one."""
    if board.comparisons.empty:
        return Section("Against the leader", [])
    leader, *others = board.ranked
    compared = list(dict.fromkeys(board.comparisons.split))
    splits = [split for split in compared if leader.opened(split)]
    rows: list[list[Cell | str]] = [
        [
            name_cell(attempt),
            *(cell for split in splits for cell in _compared(board, attempt, split)),
        ]
        for attempt in others
    ]
    header = ["attempt", *(name for split in splits for name in (f"{split} IoU", "p", " "))]
    table = Table(
        f"Difference in IoU to `{leader.name}`, mean over the same tiles, with its interval and "
        "its two-sided p-value (paired t test). Both are corrected for all pairs of attempts on "
        "the split (Holm), so the interval contains 0 exactly where p is above 0.05: a **tie**."
        f"{single_tile_note(board)}",
        header,
        rows,
        frozenset({"attempt", " "}),
    )
    differences = [
        {
            split: Interval(row.difference, row.low, row.high)
            for split in splits
            if (row := board.comparison(attempt, leader, split))
        }
        for attempt in others
    ]
    in_words = " ".join(
        f"{attempt.label}: "
        + ", ".join(f"{split} {_signed(interval.value)}" for split, interval in own.items())
        + "."
        for attempt, own in zip(others, differences, strict=True)
    )
    chart = Figure(
        f"The table as a chart: IoU minus that of {leader.label}; filled is validation, hollow is "
        "test. An interval that crosses the dashed line at 0 is a tie.",
        f"Difference in IoU to {leader.label}. {in_words}",
        charts.intervals(
            others,
            differences,
            [chart_note(board, attempt) for attempt in others],
            0,
            f"IoU minus that of {leader.label}",
        ),
    )
    every_pair = [_every_pair(board, split) for split in compared] if len(others) > 1 else []
    return Section("Against the leader", [table, chart, *every_pair])


def _every_pair(board: Leaderboard, split: str) -> Table:
    """The difference and the verdict of every two attempts that were scored on a split."""
    opened = [attempt for attempt in board.ranked if attempt.opened(split)]
    rows: list[list[Cell | str]] = [
        [name_cell(attempt), *(_pair_cell(board, attempt, than, split) for than in opened[:-1])]
        for attempt in opened[1:]
    ]
    return Table(
        f"Every pair on {SCORED_SPLITS[split]}: the IoU of the row minus that of the column, and "
        "the verdict.",
        ["attempt", *(than.label for than in opened[:-1])],
        rows,
        frozenset({"attempt"}),
    )


def _pair_cell(board: Leaderboard, attempt: Attempt, than: Attempt, split: str) -> Cell | str:
    row = board.comparison(attempt, than, split)
    return "" if row is None else Cell(_signed(row.difference), row.verdict)


def _signed(difference: float) -> str:
    return f"{'+' if difference > 0 else ''}{number(difference)}"


def _compared(board: Leaderboard, attempt: Attempt, split: str) -> list[Cell | str]:
    """The difference to the leader, its p-value, and the verdict."""
    row = board.comparison(attempt, board.leader, split)
    if row is None:
        return [SEALED, "", ""]
    return [
        Cell(_signed(row.difference), bounds(row.low, row.high)),
        "< 0.001" if row.p_value < 0.001 else number(row.p_value),
        row.verdict,
    ]
