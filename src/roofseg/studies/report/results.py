"""The results of each study: its tables, what they say, and its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from roofseg.core.images import Image
from roofseg.pages.page import Section
from roofseg.studies.declaration import Augmentations, Budget, Study
from roofseg.studies.report import figures as figures
from roofseg.studies.report import sections as sections
from roofseg.studies.report import tables as tables


@dataclass(frozen=True)
class StudyResults:
    """``tables`` by file name without suffix, the section of a page, and (H, W, 3) uint8 RGB."""

    tables: dict[str, pd.DataFrame]
    section: Section
    figure: Image


def results(
    name: str,
    study: Study,
    scores: pd.DataFrame,
    places: figures.Places,
    title: str,
    unlike: Mapping[str, Sequence[str]],
) -> StudyResults:
    """What the runs of a study say.

    Args:
        name: ``budget``, ``seeds`` or ``augmentation``.
        study: as studies.yaml declares it.
        scores: rows of `study_tables.read_run`, of all runs.
        places: the place of each label among all attempts, which decides its colour.
        title: of what data, for the figure.
        unlike: as for `study_sections.augmentation_section`; nothing in the other studies.
    """
    runs = tables.per_run(scores)
    if isinstance(study, Augmentations):
        table = tables.spread(scores, ["label", "augmentation"])
        sides = {"mild": study.mild, "strong": study.strong}
        contrasts = tables.contrasts(scores, frozen=study.frozen, unfrozen=study.unfrozen, **sides)
        more = {f"{name}_contrasts": contrasts}
        section = sections.augmentation_section(scores, table, contrasts, **sides, unlike=unlike)
        figure = figures.augmentation(runs, table, contrasts, places, title)
    elif isinstance(study, Budget):
        table, gains = tables.spread(scores, ["label", "tiles"]), tables.gains(scores)
        more = {f"{name}_gains": gains}
        section = sections.budget_section(scores, table, gains)
        figure = figures.budget(runs, table, places, title)
    else:
        table, pairs = tables.spread(scores, ["label"]), tables.pairs(scores)
        placed = tables.ranks(scores).add_prefix("rank_").reset_index(drop=True)
        more = {f"{name}_pairs": pairs}
        section = sections.seeds_section(scores, table, pairs)
        figure = figures.seeds(runs, pairs, places, title)
        table = table.join(placed)
    return StudyResults({name: table, f"{name}_runs": runs, **more}, section, figure)
