"""Gather the runs of a study: ``python -m stages.gather_study budget`` is the stage gather_budget.

Its tables and text go to metrics/studies, its figure to plots/studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.files import atomic_write, read_json, write_text
from roofseg.core.images import write_png
from roofseg.pages.page import Page, markdown
from roofseg.recipe.params import Params
from roofseg.results.disclaimers import SYNTHETIC, SYNTHETIC_DATASETS, data_label
from roofseg.studies.declaration import Augmentations, Declared, Studies
from roofseg.studies.report.results import StudyResults, results
from roofseg.studies.report.tables import is_run_of, read_run
from stages import run
from stages.studies import RESULTS, STUDIES, read_studies

PLOTS = Path("plots/studies")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.gather_study", description=__doc__)
    parser.add_argument("study", choices=list(Declared.model_fields), help="as studies.yaml says")
    name = parser.parse_args().study
    studies, params = read_studies()
    found = gathered(name, studies, params)

    for key, table in found.tables.items():
        # Plots colour their lines by `attempt`, and show it as labels do.
        named = table.rename(columns={"label": "attempt"})
        lines = named.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(RESULTS / f"{key}.csv", lines)
    page = Page(
        title=f"Study: {found.section.title.lower()}",
        lead=f"Dataset `{params.dataset}`, patches of {params.patch_size} px.",
        sections=[found.section],
        caveats=caveats(params),
    )
    write_text(RESULTS / f"{name}.md", markdown(page))
    with atomic_write(PLOTS / f"{name}.png") as path:
        write_png(path, found.figure)
    print(markdown(page))


def record_of(name: str, run: str) -> Path:
    """The file that a run of a study leaves."""
    return RESULTS / "runs" / name / f"{run}.json"


def there(name: str, studies: Studies, params: Params) -> list[str]:
    """The runs of a study whose records are there and of the data and recipes in force.

    Those of another profile stay, and those of earlier parameters until they are run again.
    """
    study = studies.study(name)

    def is_in_force(run: str, place: Mapping[str, Any]) -> bool:
        path, recipe = record_of(name, run), study.recipe(params, place, str(STUDIES))
        return path.is_file() and is_run_of(read_json(path), recipe, params)

    return [run for run, place in study.runs().items() if is_in_force(run, place)]


def gathered(name: str, studies: Studies, params: Params) -> StudyResults:
    """What the runs of a study say; UserError names the first that is missing."""
    study = studies.study(name)
    scores = pd.concat([read_run(record_of(name, run), f"{name}@{run}") for run in study.runs()])
    places = {recipe.label(key): at for at, (key, recipe) in enumerate(params.recipes().items())}
    title = data_label(params.dataset, params.patch_size)
    unlike = study.unlike(params, str(STUDIES)) if isinstance(study, Augmentations) else {}
    return results(name, study, scores, places, title, unlike)


def caveats(params: Params) -> dict[str, str]:
    """What a reader must know first."""
    synthetic = SYNTHETIC[0].upper() + SYNTHETIC[1:]
    return {"Synthetic": synthetic} if params.dataset in SYNTHETIC_DATASETS else {}


if __name__ == "__main__":
    run(main)
