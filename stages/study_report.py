"""One page of the studies that have been run: ``python -m stages.study_report``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from roofseg.core.files import write_text
from roofseg.pages.page import Section
from roofseg.recipe.params import Params
from roofseg.studies.report.page import missing, study_page, with_figure
from roofseg.tuning.figures import figures
from roofseg.tuning.section import tuning_section
from stages import run
from stages.gather_study import caveats, gathered, there
from stages.studies import RESULTS, read_studies

PAGE = Path("studies/report.html")
TUNING = RESULTS / "tuning.csv"
TITLES = {"budget": "Data budget", "seeds": "Seeds", "augmentation": "Augmentation"}


def main() -> None:
    studies, params = read_studies()
    sections = []
    for name, study in studies.named().items():
        done, runs = len(there(name, studies, params)), len(study.runs())
        if done == runs:
            found = gathered(name, studies, params)
            sections.append(with_figure(name, found.section, found.figure))
        else:
            sections.append(missing(name, TITLES[name], done, runs))
    if (tuned := tuning_table(params)) is not None:
        sections.append(tuning(tuned, params))
    write_text(PAGE, study_page(params.dataset, params.patch_size, sections, caveats(params)))
    print(f"{PAGE}: {', '.join(section.title for section in sections)}")


def tuning_table(params: Params) -> pd.DataFrame | None:
    """What `make tuning-report` gathered of the dataset and attempts in force, if anything."""
    if not TUNING.is_file():
        return None
    # Values such as null are words here.
    table = pd.read_csv(TUNING, keep_default_na=False, na_values=[""])
    own = table[(table.dataset == params.dataset) & table.attempt.isin(list(params.attempts))]
    return None if own.empty else own.drop(columns="dataset").reset_index(drop=True)


def tuning(table: pd.DataFrame, params: Params) -> Section:
    """The section of the runs in `tuning_table`."""
    captions = {"best": "The best val IoU against the number of runs spent on it."}
    labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
    return tuning_section(
        table.replace({"attempt": labels}),
        {
            captions.get(name, f"Val IoU against {name}; a dot per run."): picture
            for name, picture in figures(table, params).items()
        },
    )


if __name__ == "__main__":
    run(main)
