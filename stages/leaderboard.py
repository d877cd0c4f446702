"""Put all attempts of params.yaml into one table, one plot, and one picture per split."""

from __future__ import annotations

from pathlib import Path

from roofseg.leaderboard import leaderboard
from stages import run
from stages.parameters import read_params


def main() -> None:
    params = read_params()
    text = leaderboard(
        params.recipes(),
        dataset=params.dataset,
        patch_size=params.patch_size,
        results=Path("metrics/attempts"),
        predictions=Path("predictions"),
        baselines=Path("metrics/baselines.json"),
        metrics=Path("metrics"),
        plots=Path("plots"),
    )
    print(text)


if __name__ == "__main__":
    run(main)
