"""Put all attempts of params.yaml into one table, with comparisons, costs, plots, and a report."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.files import read_json
from roofseg.recipe.params import Recipe, read_params
from roofseg.report.leaderboard import leaderboard
from roofseg.report.report import report
from stages import run

RESULTS = Path("metrics/attempts")


def main() -> None:
    params = read_params(Path("params.yaml"))
    text = leaderboard(
        {name: trained_recipe(name) for name in params.attempts},
        dataset=params.dataset,
        patch_size=params.patch_size,
        results=RESULTS,
        predictions=Path("predictions"),
        baselines=Path("metrics/baselines.json"),
        metrics=Path("metrics"),
        plots=Path("plots"),
    )
    report(
        list(params.attempts),
        metrics=Path("metrics"),
        plots=Path("plots"),
        predictions=Path("predictions"),
        lock=Path("requirements.lock"),
        page=Path("report.html"),
        text=Path("report.md"),
    )
    print(text)


def trained_recipe(attempt: str) -> Recipe:
    """The recipe that the attempt was trained with."""
    return Recipe.model_validate(read_json(RESULTS / attempt / "training.json")["recipe"])


if __name__ == "__main__":
    run(main)
