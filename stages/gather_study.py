"""Gather the runs of a study into its tables, its report and its figure.

DVC runs ``python -m stages.gather_study budget`` as the stage gather@budget.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roofseg.core.files import atomic_write, write_text
from roofseg.core.images import write_png
from roofseg.core.run_states import remove_finished
from roofseg.core.terminal import ArgumentParser
from roofseg.recipe.digest import recipe_of
from roofseg.recipe.params import Params
from roofseg.recipe.split import read_nudges, read_split
from roofseg.results.tables import write_csv
from roofseg.studies.declaration import STUDY_NAMES, Studies
from roofseg.studies.report.results import gather, seed_spread, study_markdown
from stages import run, state_root
from stages._studies import PLOTS, RECORDS, RESULTS, declared_studies

if TYPE_CHECKING:
    import pandas as pd


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.gather_study", description=__doc__)
    parser.add_argument("study", choices=STUDY_NAMES, help="a study of studies.yaml")
    name = parser.parse_args().study
    studies, params = declared_studies()
    results = gather(name, studies.study(name), params, RECORDS)
    spread = spread_for_leaderboard(studies, params) if name == "seeds" else None
    text = study_markdown(params.dataset, params.patch_size, results.section)
    # DVC has recorded the runs by now, so their states are not needed.
    for attempt in studies.study(name).attempts:
        remove_finished(state_root(), f"{name}-{attempt}")
    with atomic_write(RESULTS / name) as folder:
        for key, table in results.tables.items():
            # DVC's plots colour lines by the column `attempt` and show its values as labels.
            shown = table.rename(columns={"label": "attempt"})
            write_csv(folder / f"{key}.csv", shown, float_format="%.6f")
        write_text(folder / "report.md", text)
    with atomic_write(PLOTS / f"{name}.png") as path:
        write_png(path, results.figure)
    if spread is not None:
        # Not an output of this stage: dvc.yaml says why.
        write_csv(Path("metrics/seed_spread.csv"), spread)
    print(text)


def spread_for_leaderboard(studies: Studies, params: Params) -> pd.DataFrame:
    """The spread over seeds of the attempts of params.yaml; the leaderboard has no others."""
    data, study = Path("data") / params.dataset, studies.study("seeds")
    split, nudges = read_split(data), read_nudges(data)
    recipes = {
        attempt: recipe_of(params.recipe(attempt), params, split, nudges)
        for attempt in study.attempts
        if attempt not in studies.attempts
    }
    return seed_spread(study, params, RECORDS, recipes)


if __name__ == "__main__":
    run(main)
