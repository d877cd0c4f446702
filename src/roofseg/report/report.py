"""The report: all that the leaderboard knows, on one page to read, send and print.

report.html has charts and tiles in it; report.md is the same text and tables for GitHub. Both are
made from files that the leaderboard and the stages before it wrote, and hold no time of their own:
the same files give the same bytes. It starts without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from roofseg.core.files import write_text
from roofseg.pages.page import Page, Section, html, markdown
from roofseg.report.details import costs, measures, thresholds, training
from roofseg.report.record import caveats, environment, lead, looks, reproduce
from roofseg.report.results import Results, read_results
from roofseg.report.scores import against_leader, result, side_by_side

SECTIONS: Sequence[Callable[[Results], Section]] = (
    result,
    against_leader,
    side_by_side,
    training,
    measures,
    thresholds,
    costs,
    looks,
    environment,
    reproduce,
)


def report(
    attempts: Sequence[str],
    *,
    metrics: Path,
    plots: Path,
    predictions: Path,
    lock: Path,
    page: Path,
    text: Path,
) -> None:
    """Write the report of a leaderboard.

    Args:
        attempts: their names in the order of params.yaml, which decides their colours.
        metrics: the folder with leaderboard.json, the leaderboard's other tables, and
            attempts/NAME/ as training and evaluation wrote it.
        plots: the folder with the tables of curves.
        predictions: the folder with NAME/SPLIT/panels/TILE.png.
        lock: requirements.lock.
        page: the HTML file to write.
        text: the Markdown file to write.

    Raises UserError for a missing file, naming it and the command that makes it.
    """
    results = read_results(
        attempts, metrics=metrics, plots=plots, predictions=predictions, lock=lock
    )
    made = Page(
        title=f"Roof segmentation on {results.dataset}",
        lead=lead(results),
        caveats=caveats(results),
        sections=[section for make in SECTIONS if (section := make(results)).blocks],
    )
    whole, plain = html(made), markdown(made)
    write_text(page, whole)
    write_text(text, plain)
