"""Rank the attempts of params.yaml: write tables, data for plots, and the report."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.files import write_text
from roofseg.pages.page import html, markdown
from roofseg.recipe.digest import recipe_of
from roofseg.recipe.parsing import read_params
from roofseg.recipe.split import read_nudges, read_split
from roofseg.report.leaderboard import read_leaderboard, write_machine_files
from roofseg.report.page import headline_page, report_page
from roofseg.results.seed_spread import read_seed_spread
from stages import run


def main() -> None:
    params = read_params(Path("params.yaml"))
    data = Path("data") / params.dataset
    split, nudges = read_split(data), read_nudges(data)
    recipes = {
        name: recipe_of(recipe, params, split, nudges) for name, recipe in params.recipes().items()
    }
    board = read_leaderboard(
        list(params.attempts),
        dataset=params.dataset,
        patch_size=params.patch_size,
        results=Path("metrics/attempts"),
        baselines=Path("metrics/baselines.json"),
        seed_spread=read_seed_spread(Path("metrics/seed_spread.csv"), recipes),
    )
    report = report_page(board, predictions=Path("predictions"), lock=Path("requirements.lock"))
    pages = {
        "report.html": html(report),
        "report.md": markdown(report),
        "metrics/leaderboard.md": markdown(headline_page(board, "../report.md")),
    }
    # Write only after everything has been read: a missing file leaves no half-written leaderboard.
    write_machine_files(board, metrics=Path("metrics"), plots=Path("plots"))
    for path, text in pages.items():
        write_text(Path(path), text)
    print(pages["metrics/leaderboard.md"])


if __name__ == "__main__":
    run(main)
