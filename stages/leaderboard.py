"""Put all attempts of params.yaml into one table, one plot, and one picture per split."""

from __future__ import annotations

from pathlib import Path

from stages import read_params, run  # first: it puts the src beside it on the path

from roofseg.leaderboard import leaderboard


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
