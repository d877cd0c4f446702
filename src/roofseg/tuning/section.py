"""The section on tuning, for the page of the studies."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from roofseg.core.images import Image
from roofseg.pages.page import Figure, Prose, Section
from roofseg.results.tables import counted
from roofseg.studies.report.sections import page_figure, page_table
from roofseg.tuning.table import DONE, cell_text, tuned_keys, winners


def tuning_section(table: pd.DataFrame, figures: Mapping[str, Image]) -> Section:
    """Make the section: the best run of each attempt, the figures, and every run.

    Args:
        table: `roofseg.tuning.table.tuning_table`, with the attempts' names as pages show them.
        figures: `roofseg.tuning.figures.figures` of the table, (H, W, 3) uint8 RGB.
    """
    keys, done = tuned_keys(table), sum(table.state == DONE)
    values = {key: table[key].map(cell_text) for key in keys}
    verdicts = table.verdict.fillna("")
    runs = table.rename(columns={"attempt": "label"}).assign(**values, verdict=verdicts)
    words = ("attempt", "state", "", *keys)
    own = {"attempt": "label", **{key: key for key in keys}, "val IoU": "val_iou"}
    all_columns = {"attempt": "label", "state": "state", **own, "difference": "difference"}
    return Section(
        "Tuning",
        [
            Prose(
                f"{counted(done, 'run')} {'was' if done == 1 else 'were'} finished when `roofseg "
                "tuning-report` last ran. The best of several runs on the same tiles is biased "
                "upwards, and more so with more runs."
            ),
            page_table(runs.loc[winners(table).index], "The best run of each attempt.", own, words),
            *(_figure(name, picture) for name, picture in figures.items()),
            page_table(
                runs,
                "Every run, with its difference in IoU to its attempt's best (**leader**), its "
                "interval over tiles, and the verdict. **tie**: judged by these tiles, the run may "
                "be as good as the best. **behind**: it is not (paired t test, Holm's correction "
                "for the attempt's runs). A single tile gives no verdicts.",
                {**all_columns, "": "verdict"},
                words,
            ),
        ],
    )


def _figure(name: str, picture: Image) -> Figure:
    caption = f"Val IoU against {name}; a dot per run."
    if name == "best":
        caption = "The best val IoU against the number of runs spent on it."
    return page_figure(picture, caption, f"{caption} The numbers are in the table below.")
