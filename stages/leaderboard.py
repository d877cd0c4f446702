"""Put all attempts of params.yaml into one table, one plot, and one picture per split."""

from __future__ import annotations

from pathlib import Path

from roofseg.files import read_json
from roofseg.leaderboard import leaderboard
from roofseg.recipe import Recipe
from stages import run
from stages.parameters import read_params

RESULTS = Path("metrics/attempts")


def main() -> None:
    params = read_params()
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
    print(text)


def trained_recipe(attempt: str) -> Recipe:
    """The recipe that the attempt was trained with."""
    return Recipe.model_validate(read_json(RESULTS / attempt / "training.json")["recipe"])


if __name__ == "__main__":
    run(main)
