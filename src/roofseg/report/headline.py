"""The report's sections on which attempt is best, and how certain that is."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

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
from roofseg.report.leaderboard import Leaderboard
from roofseg.results.disclaimers import SEALED
from roofseg.results.intervals import Interval
from roofseg.results.seed_spread import SeedSpread
from roofseg.results.tables import number
from roofseg.results.verdicts import AHEAD, BEHIND, IN_WORDS, TIE

HEADLINE = (
    "Attempts are ordered by validation IoU. IoU and F1 are means over tiles at threshold 0.5. "
    "Validation also chose the best epoch of each attempt, so its scores are optimistic."
)
INTERVAL = (
    "Brackets hold the 95 % interval over tiles (Student's t). It shows how far a score would move "
    "with other tiles of this kind, not with another seed. Equal scores on all tiles give none."
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
                "IoU of each attempt with its 95 % interval, if it has one; filled is validation, "
                "hollow is test. The dashed line is the floor on validation. Verdicts are those of "
                "the differences, which the next section draws.",
                f"IoU by attempt. {in_words}",
                charts.intervals(
                    board.ranked,
                    [
                        {
                            split: attempt.score(split, "iou")
                            for split in board.splits
                            if attempt.opened(split)
                        }
                        for attempt in board.ranked
                    ],
                    [chart_note(board, attempt) for attempt in board.ranked],
                    board.floor,
                    "IoU, mean over tiles",
                ),
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
                    status_text(board, attempt, split),
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
    caption = HEADLINE
    if any(board.tile_counts[split] != 1 for split in board.splits):
        caption += f" {INTERVAL}"
    if board.comparisons.p_value.notna().any():
        caption += (
            f" **leader**: the best on validation; the others are compared with it. {IN_WORDS}"
        )
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


def single_tile_note(board: Leaderboard) -> str:
    """Say which splits have a single tile, as a sentence after a space; empty if none has."""
    single = [split for split in board.splits if board.tile_counts[split] == 1]
    if not single:
        return ""
    return f" There is a single tile of {join_words(single)}: no intervals and no verdicts there."


def _verdict(board: Leaderboard) -> str:
    """Say which attempt leads on validation, which tie with it, and its score on test."""
    leader = board.leader
    text = f"**{leader.label}** leads on validation with an IoU of {score_cell(leader, 'val')}."
    if ties := _with_status(board, "val", TIE):
        text += f" {_verb(ties, 'tie')} with it: on these tiles the difference may be chance."
    if behind := _with_status(board, "val", BEHIND):
        text += f" {join_words(behind)} {'is' if len(behind) == 1 else 'are'} behind."
    if leader.opened("test"):
        text += f" Its test IoU is {score_cell(leader, 'test')}"
        if ahead := _with_status(board, "test", AHEAD):
            text += f"; {_verb(ahead, 'score')} higher there"
        if ties := _with_status(board, "test", TIE):
            text += f"; {_verb(ties, 'tie')} with it there"
        text += "."
    return text + single_tile_note(board)


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
    alone = [name for name, interval in scores if interval.value > floor and isnan(interval.low)]
    text = f"Not above it: {', '.join(below)}." if below else "Every attempt is above it."
    if within:
        text += (
            f" It lies within the interval of {join_words(within)}, which on other tiles of this "
            "kind might not be above it."
        )
    if alone:
        text += f" There is no interval of {join_words(alone)} to tell whether other tiles agree."
    return text


def status_text(board: Leaderboard, attempt: Attempt, split: str) -> str:
    """The status, unless the score already shows it."""
    status = board.status(attempt, split)
    return "" if status == SEALED else status


def chart_note(board: Leaderboard, attempt: Attempt) -> str:
    """The status on val, and the status on test if it differs, such as ``tie, behind on test``."""
    val, test = (status_text(board, attempt, split) for split in SCORED_SPLITS)
    return ", ".join(filter(None, [val, f"{test} on test" if test and test != val else ""]))


def score_cell(attempt: Attempt, split: str, name: str = "iou") -> Cell | str:
    """A score with its interval, or `SEALED`."""
    if not attempt.opened(split):
        return SEALED
    score = attempt.score(split, name)
    return with_interval(score.value, score.low, score.high)
