"""Write studies/report.html, one page about the studies and the tuning runs finished so far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roofseg.core.errors import UserError
from roofseg.core.files import write_text
from roofseg.recipe.params import Params
from roofseg.studies.report.records import finished_runs
from roofseg.studies.report.results import gather, studies_html
from roofseg.studies.report.sections import unfinished_section
from roofseg.tuning.figures import figures
from roofseg.tuning.section import tuning_section
from roofseg.tuning.table import HEAD, SCORES
from stages import run
from stages._studies import RECORDS, RESULTS, declared_studies

if TYPE_CHECKING:
    import pandas as pd

PAGE = Path("studies/report.html")
TUNING = RESULTS / "tuning.csv"


def main() -> None:
    studies, params = declared_studies()
    sections = []
    for name, study in studies.by_name().items():
        finished = finished_runs(RECORDS, name, study, params)
        if len(finished) == len(study.runs()):
            sections.append(gather(name, study, params, RECORDS).section)
        else:
            sections.append(unfinished_section(name, len(finished), len(study.runs())))
    if (table := read_tuning_runs(params)) is not None:
        labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
        sections.append(tuning_section(table.replace({"attempt": labels}), figures(table, params)))
    write_text(PAGE, studies_html(params.dataset, params.patch_size, sections))
    print(f"{PAGE}: {', '.join(section.title for section in sections)}")


def read_tuning_runs(params: Params) -> pd.DataFrame | None:
    """The rows of `roofseg tuning-report` for the dataset and attempts in params.yaml.

    Returns None if there are none. UserError if the file is of an older version.
    """
    if not TUNING.is_file():
        return None
    import pandas as pd

    # Only an empty field is a missing value: a word such as null is a value of a parameter.
    table = pd.read_csv(TUNING, keep_default_na=False, na_values=[""])
    if missing := [name for name in (*HEAD, *SCORES) if name not in table]:
        raise UserError(
            f"{TUNING}: lacks the columns {', '.join(missing)}, which an earlier version did not "
            "write. Run `roofseg tuning-report` to write it again."
        )
    own = table[(table.dataset == params.dataset) & table.attempt.isin(list(params.attempts))]
    return None if own.empty else own.drop(columns="dataset").reset_index(drop=True)


if __name__ == "__main__":
    run(main)
