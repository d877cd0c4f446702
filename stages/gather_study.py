"""Gather the runs of a study: ``python -m stages.gather_study budget`` is the stage gather_budget.

Its tables and text go to metrics/studies, its figure to plots/studies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from roofseg.caveats import SYNTHETIC, SYNTHETIC_DATASETS
from roofseg.files import read_json, replaced, write_png, write_text
from roofseg.pages import Page, markdown
from roofseg.recipe import Params
from roofseg.studies import Declared, Studies
from roofseg.study_results import StudyResults, results
from roofseg.study_tables import read_run
from stages import run
from stages.studies import RESULTS, read_studies

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
    with replaced(PLOTS / f"{name}.png") as path:
        write_png(path, found.figure)
    print(markdown(page))


def records(name: str, studies: Studies) -> dict[str, Path]:
    """Where the record of each run of a study is, by the run's name."""
    return {
        each: RESULTS / "runs" / name / f"{each}.json" for each in studies.study(name).run_names()
    }


def is_there(path: Path, params: Params) -> bool:
    """Whether a run's record is there, and of the data in force: that of another profile stays."""
    if not path.is_file():
        return False
    record = read_json(path)
    found: bool = (record["dataset"], record["patch_size"]) == (params.dataset, params.patch_size)
    return found


def gathered(name: str, studies: Studies, params: Params) -> StudyResults:
    """What the runs of a study say; UserError names the first that is missing."""
    scores = pd.concat(
        [read_run(path, f"{name}@{each}") for each, path in records(name, studies).items()]
    )
    places = {recipe.label(key): at for at, (key, recipe) in enumerate(params.recipes().items())}
    synthetic = params.dataset in SYNTHETIC_DATASETS
    title = f"{params.dataset}{' (synthetic)' if synthetic else ''}, {params.patch_size} px"
    return results(name, studies.study(name), scores, places, title)


def caveats(params: Params) -> dict[str, str]:
    """What a reader must know first."""
    return {"Synthetic": SYNTHETIC} if params.dataset in SYNTHETIC_DATASETS else {}


if __name__ == "__main__":
    run(main)
