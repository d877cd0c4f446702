"""One page of the studies that have been run: ``python -m stages.study_report``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from roofseg.files import Image, write_text
from roofseg.pages import Section
from roofseg.recipe import Params
from roofseg.study_report import missing, study_page, tuning_section, with_figure
from roofseg.tuning_figures import against, best_so_far
from roofseg.tuning_table import HEAD, SCORES
from stages import run
from stages.gather_study import caveats, gathered, records
from stages.studies import RESULTS, read_studies

PAGE = Path("studies/report.html")
TUNING = RESULTS / "tuning.csv"
TITLES = {"budget": "Data budget", "seeds": "Seeds", "augmentation": "Augmentation"}


def main() -> None:
    studies, params = read_studies()
    sections = []
    for name in studies.named():
        paths = records(name, studies).values()
        there = sum(path.is_file() for path in paths)
        if there == len(paths):
            found = gathered(name, studies, params)
            sections.append(with_figure(name, found.section, found.figure))
        else:
            sections.append(missing(name, TITLES[name], there, len(paths)))
    if TUNING.is_file():
        sections.append(tuning(params))
    write_text(PAGE, study_page(params.dataset, params.patch_size, sections, caveats(params)))
    print(f"{PAGE}: {', '.join(section.title for section in sections)}")


def tuning(params: Params) -> Section:
    """What `make tuning-report` gathered."""
    table = pd.read_csv(TUNING)
    places = {name: index for index, name in enumerate(params.attempts)}
    labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
    figures: dict[str, Image] = {
        f"Val IoU against {key}; a dot per run.": against(table, key, places, labels)
        for key in table.columns
        if key not in (*HEAD, *SCORES)
    }
    figures["The best val IoU against the number of runs spent on it."] = best_so_far(
        table, places, labels
    )
    return tuning_section(table, figures)


if __name__ == "__main__":
    run(main)
