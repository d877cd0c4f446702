"""The pages for readers: the report, and the headline table alone (leaderboard.md).

Both are descriptions (`roofseg.pages.page.Page`) of a leaderboard. They do not hold the time when
they were made, so the same results give the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from roofseg.pages.page import Page, Prose, Section
from roofseg.report.details import costs, measures, thresholds, training
from roofseg.report.differences import against_leader
from roofseg.report.headline import floor_text, result, result_table
from roofseg.report.leaderboard import Leaderboard
from roofseg.report.provenance import caveats, environment, lead, looks, reproduce
from roofseg.report.tile_pictures import tile_by_tile
from roofseg.results.disclaimers import data_label


def report_page(board: Leaderboard, *, predictions: Path, lock: Path) -> Page:
    """Describe the report of a leaderboard.

    Args:
        board: the leaderboard.
        predictions: the folder with NAME/SPLIT/panels/TILE.png of each attempt.
        lock: requirements.lock.

    Raises:
        UserError: a file is missing; the message names it and the command that makes it.
    """
    sections = [
        result(board),
        against_leader(board),
        tile_by_tile(board, predictions),
        training(board),
        measures(board),
        thresholds(board),
        costs(board),
        looks(board),
        environment(board, lock),
        reproduce(board),
    ]
    return Page(
        title=f"Roof segmentation on {board.dataset}",
        lead=lead(board),
        caveats=caveats(board),
        sections=[section for section in sections if section.blocks],
    )


def headline_page(board: Leaderboard, report: str) -> Page:
    """Describe leaderboard.md: the table of results, without charts and details.

    Args:
        board: the leaderboard.
        report: path of the report in Markdown, relative to leaderboard.md.
    """
    table = result_table(board)
    ranks = [[str(rank), *row] for rank, row in enumerate(table.rows, 1)]
    return Page(
        title=f"Leaderboard on {data_label(board.dataset, board.patch_size)}",
        lead=lead(board),
        caveats=caveats(board),
        sections=[
            Section(
                "Result",
                [
                    replace(table, header=["rank", *table.header], rows=ranks),
                    Prose(floor_text(board)),
                    Prose(
                        f"The [report]({report}) adds comparisons, measures, costs and provenance; "
                        "report.html (`dvc pull report.html`) also has charts and pictures."
                    ),
                ],
            )
        ],
    )
