"""The results of each study: its tables, what they say, and its figure."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from roofseg import study_figures as figures
from roofseg import study_sections as sections
from roofseg import study_tables as tables
from roofseg.files import Image
from roofseg.pages import Section
from roofseg.studies import Augmentations, Study


@dataclass(frozen=True)
class StudyResults:
    """``tables`` by file name without suffix, the section of a page, and (H, W, 3) uint8 RGB."""

    tables: dict[str, pd.DataFrame]
    section: Section
    figure: Image


def results(
    name: str, study: Study, scores: pd.DataFrame, places: figures.Places, title: str
) -> StudyResults:
    """What the runs of a study say.

    Args:
        name: ``budget``, ``seeds`` or ``augmentation``.
        study: as studies.yaml declares it.
        scores: rows of `study_tables.read_run`, of all runs.
        places: the place of each label among all attempts, which decides its colour.
        title: of what data, for the figure.
    """
    runs = tables.per_run(scores)
    found = {f"{name}_runs": runs}
    if isinstance(study, Augmentations):
        table = tables.spread(scores, ["label", "augmentation"])
        sides = {"mild": study.mild, "strong": study.strong}
        contrasts = tables.contrasts(scores, frozen=study.frozen, unfrozen=study.unfrozen, **sides)
        found |= {name: table, f"{name}_contrasts": contrasts}
        section = sections.augmentation_section(scores, table, contrasts, **sides)
        figure = figures.augmentation(runs, table, contrasts, places, title)
    elif name == "seeds":
        table, pairs = tables.spread(scores, ["label"]), tables.pairs(scores)
        placed = tables.ranks(scores).add_prefix("rank_").reset_index(drop=True)
        found |= {name: table.join(placed), f"{name}_pairs": pairs}
        section = sections.seeds_section(scores, table, pairs)
        figure = figures.seeds(runs, pairs, places, title)
    else:
        table = tables.spread(scores, ["label", "tiles"])
        found |= {name: table}
        section = sections.budget_section(scores, table)
        figure = figures.budget(runs, table, places, title)
    return StudyResults(found, section, figure)
