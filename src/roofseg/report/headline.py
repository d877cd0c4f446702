"""The report's sections on which attempt is best, and how certain that is."""

from __future__ import annotations

from collections.abc import Sequence

from roofseg.metrics import SCORED_SPLITS
from roofseg.pages.page import (
    Cell,
    Figure,
    Prose,
    Section,
    Table,
    join_words,
    with_interval,
)
from roofseg.report import charts
from roofseg.report.attempts import Attempt
from roofseg.report.comparisons import interval_and_p_disagree, smallest_p_values
from roofseg.report.leaderboard import Leaderboard
from roofseg.results.disclaimers import SEALED
from roofseg.results.intervals import DRAWS, EXACT_TILES, Interval
from roofseg.results.seed_spread import SeedSpread
from roofseg.results.tables import number

HEADLINE = (
    "Attempts are ordered by validation IoU. IoU and F1 are means over tiles at threshold 0.5. "
    "Validation also chose the best epoch of each attempt, so its scores are optimistic."
)
INTERVAL = (
    f"Brackets hold the 95 % bootstrap interval over tiles ({DRAWS:,} resamples). It shows how far "
    "a score would move with other tiles of this kind, not with another seed; with few tiles it is "
    "too narrow."
)
SEALED_NOTE = (
    f"**{SEALED}**: the recipe is not final, so the test split was not opened for it. To open it, "
    "run `roofseg finalize NAME`, commit params.yaml and run `dvc repro`."
)


SPREAD = "sd over seeds"  # the heading of the column with the spread over seeds


def name_cell(attempt: Attempt) -> Cell:
    """The first cell of an attempt's row: its name."""
    return Cell(attempt.name, "no SAM weights" if attempt.recipe.without_sam else "", code=True)


def result(board: Leaderboard) -> Section:
    """The headline table, its chart, and what they show in words."""
    notes = [_chart_note(board, attempt) for attempt in board.ranked]
    in_words = " ".join(
        f"{attempt.label}: "
        + ", ".join(
            f"{SCORED_SPLITS[split]} {score_cell(attempt, split)}" for split in board.splits
        )
        for attempt in board.ranked
    )
    return Section(
        "Result",
        [
            Prose(_verdict(board)),
            result_table(board),
            Figure(
                "IoU of each attempt with its 95 % interval; filled is validation, hollow is test. "
                "The dashed line is the floor on validation. Read ties from the tables: two "
                "intervals can overlap although one attempt is better on every tile.",
                f"IoU by attempt. {in_words}",
                charts.intervals(board.ranked, notes, board.floor),
            ),
            Prose(floor_text(board)),
        ],
    )


def result_table(board: Leaderboard) -> Table:
    """The headline table: IoU and F1 of every attempt on each split that was opened."""
    whole = board.whole_tile_splits
    rows: list[list[Cell | str]] = [
        [
            name_cell(attempt),
            *(
                cell
                for split in board.splits
                for cell in (
                    score_cell(attempt, split),
                    _mark(board, attempt, split),
                    score_cell(attempt, split, "f1"),
                )
            ),
            *(score_cell(attempt, split) for split in whole),
        ]
        for attempt in board.ranked
    ]
    header = [
        "attempt",
        *(name for split in board.splits for name in (f"{split} IoU", "", f"{split} F1")),
        *(f"{split.partition('_')[0]} IoU, whole tiles" for split in whole),
    ]
    if board.seed_spread:  # beside val IoU, the first score
        header.insert(2, SPREAD)
        for row, attempt in zip(rows, board.ranked, strict=True):
            row.insert(2, _spread_cell(board.seed_spread.get(attempt.name)))
    caption = f"{HEADLINE} {INTERVAL}"
    if whole:
        caption += (
            " The columns on whole tiles score every pixel of a tile, predicted in blended windows "
            "as `roofseg predict` does; everything else is measured on the patches."
        )
    if not all(attempt.opened("test") for attempt in board.attempts):
        caption += f" {SEALED_NOTE}"
    return Table(caption, header, rows, frozenset({"attempt", ""}))


def _spread_cell(spread: SeedSpread | None) -> Cell | str:
    """The standard deviation over seeds with their number, or a dash."""
    return Cell(f"{number(spread.sd)},", f"{spread.seeds} seeds") if spread else number(None)


def _verdict(board: Leaderboard) -> str:
    """Say which attempt leads on validation, which tie with it, and its score on test."""
    leader = board.leader
    text = f"**{leader.label}** leads on validation with an IoU of {score_cell(leader, 'val')}."
    val = board.comparisons[board.comparisons.split == "val"]
    if not val.empty:
        if ties := _with_status(board, "val", "tie"):
            text += f" {_verb(ties, 'tie')} with it: these tiles cannot tell them apart."
        else:
            text += " No other attempt ties with it: every interval of a difference excludes 0."
        unsure = set(val.attempt[interval_and_p_disagree(val)])
        if doubtful := [attempt.label for attempt in board.ranked if attempt.name in unsure]:
            text += (
                " With few tiles these intervals are too narrow, though: the sign-flip test does "
                f"not rule out chance for {join_words(doubtful)}."
            )
    if leader.opened("test"):
        text += f" Its test IoU is {score_cell(leader, 'test')}"
        if ahead := _with_status(board, "test", "ahead"):
            text += f"; {_verb(ahead, 'score')} higher there"
        if ties := _with_status(board, "test", "tie"):
            text += f"; {_verb(ties, 'tie')} with it there"
        text += "."
    return text


def _with_status(board: Leaderboard, split: str, status: str) -> list[str]:
    return [attempt.label for attempt in board.ranked if board.status(attempt, split) == status]


def _verb(names: Sequence[str], verb: str) -> str:
    return f"{join_words(names)} {verb}{'s' if len(names) == 1 else ''}"


def floor_text(board: Leaderboard) -> str:
    """Say what the floor on validation is, and which attempts are not clearly above it."""
    constant, colour = board.baselines["constant"], board.baselines["colour_threshold"]
    sign = {"above": "≥", "below": "<"}[colour["direction"]]
    scores = [(f"**{attempt.label}**", attempt.score("val", "iou")) for attempt in board.ranked]
    return (
        f"The floor on validation is the better of two baselines: {constant['mask']}, IoU "
        f"{number(constant['val']['iou'])}; a colour threshold fitted on train "
        f"({colour['channel'].replace('_', ' ')} {sign} {colour['threshold']}), IoU "
        f"{number(colour['val']['iou'])}. {above_floor(scores, board.floor)}"
    )


def above_floor(scores: Sequence[tuple[str, Interval]], floor: float) -> str:
    """Say which attempts are above the floor on val, and which of them may be so by chance.

    Args:
        scores: the name and val IoU of each attempt.
        floor: the best val IoU of the baselines.
    """
    below = [name for name, interval in scores if not interval.value > floor]
    within = [name for name, interval in scores if interval.low <= floor < interval.value]
    text = f"Not above it: {', '.join(below)}." if below else "Every attempt is above it."
    if within:
        text += (
            f" It lies within the interval of {join_words(within)}, which on other tiles of this "
            "kind might not be above it."
        )
    return text


def against_leader(board: Leaderboard) -> Section:
    """The difference of each attempt to the leader; no blocks if there is nothing to compare."""
    if board.comparisons.empty:
        return Section("Against the leader", [])
    splits = list(dict.fromkeys(board.comparisons.split))
    rows: list[list[Cell | str]] = [
        [
            name_cell(attempt),
            *(cell for split in splits for cell in _compared(board, attempt, split)),
        ]
        for attempt in board.ranked[1:]
    ]
    header = ["attempt", *(name for split in splits for name in (f"{split} IoU", "p", " "))]
    return Section(
        "Against the leader",
        [
            Table(
                f"Difference in IoU to `{board.leader.name}`, mean over the same tiles, with its "
                "paired 95 % bootstrap interval. A **tie** is an interval that contains 0. The "
                "two-sided p-value is by sign flips (the results of the two attempts are exchanged "
                f"tile by tile): all of them up to {EXACT_TILES} tiles, {DRAWS:,} random ones "
                "beyond. It is not corrected for the number of comparisons, and cannot be below "
                f"{smallest_p_values(board.comparisons)}. The two can disagree: with few tiles the "
                "interval is too narrow, and p cannot be small.",
                header,
                rows,
                frozenset({"attempt", " "}),
            )
        ],
    )


def _compared(board: Leaderboard, attempt: Attempt, split: str) -> list[Cell | str]:
    """The difference to the leader, its p-value, and the status."""
    row = board.comparison(attempt, split)
    if row is None:
        return [SEALED, "", ""]
    shown = with_interval(row.difference, row.low, row.high)
    return [
        Cell(f"+{shown.text}" if row.difference > 0 else shown.text, shown.detail),
        f"{row.p_value:.3f}" if row.p_value >= 0.01 else f"{row.p_value:.1g}",
        board.status(attempt, split),
    ]


def _mark(board: Leaderboard, attempt: Attempt, split: str) -> str:
    """The status, unless the order of the rows or the score already shows it."""
    status = board.status(attempt, split)
    return "" if status in ("behind", SEALED) else status


def _chart_note(board: Leaderboard, attempt: Attempt) -> str:
    """The status on val, and the status on test if it differs, such as ``tie on test``."""
    val, test = (_mark(board, attempt, split) for split in SCORED_SPLITS)
    return ", ".join(filter(None, [val, f"{test} on test" if test and test != val else ""]))


def score_cell(attempt: Attempt, split: str, name: str = "iou") -> Cell | str:
    """A score with its interval, or `SEALED`."""
    if not attempt.opened(split):
        return SEALED
    score = attempt.score(split, name)
    return with_interval(score.value, score.low, score.high)
