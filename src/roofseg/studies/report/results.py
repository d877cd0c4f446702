"""The results of a study: its tables, the section that describes them, and its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from roofseg.core.images import Image
from roofseg.pages.page import Section
from roofseg.recipe.params import Params
from roofseg.results.disclaimers import data_label
from roofseg.studies.declaration import Augmentations, Budget, Study
from roofseg.studies.report import figures, sections, tables
from roofseg.studies.report.records import read_records


@dataclass(frozen=True)
class StudyResults:
    """``tables`` by file name without suffix, a page section, and a figure (H, W, 3) uint8 RGB."""

    tables: dict[str, pd.DataFrame]
    section: Section
    figure: Image


def gather(name: str, study: Study, params: Params, *, records: Path, source: str) -> StudyResults:
    """Read the records of all runs of a study and summarize them.

    Args:
        name: one of `roofseg.studies.declaration.STUDY_NAMES`.
        study: as studies.yaml declares it.
        params: the parameters, with the attempts of studies.yaml.
        records: the folder of records, see `read_record`.
        source: the name of studies.yaml, for errors.

    Raises:
        UserError: a record is missing or broken
    """
    order = {recipe.label(key): at for at, (key, recipe) in enumerate(params.recipes().items())}
    differences = (
        study.other_differences(params, source) if isinstance(study, Augmentations) else {}
    )
    return summarize(
        study,
        read_records(records, name, study),
        order,
        data_label(params.dataset, params.patch_size),
        differences,
    )


def summarize(
    study: Study,
    scores: pd.DataFrame,
    order: figures.Order,
    data: str,
    differences: Mapping[str, Sequence[str]],
) -> StudyResults:
    """Summarize the scores of a study.

    Args:
        study: as studies.yaml declares it.
        scores: rows of `read_records`.
        order: the index of each label among all attempts, which decides its colour.
        data: the data that the runs are trained on, for the title of the figure.
        differences: see `sections.augmentation_section`; empty for the other studies.
    """
    runs = tables.per_run(scores)
    if isinstance(study, Augmentations):
        summary = tables.spread(scores, ["label", "augmentation"])
        sides = {"mild": study.mild, "strong": study.strong}
        contrasts = tables.contrasts(scores, frozen=study.frozen, unfrozen=study.unfrozen, **sides)
        comparison = {"contrasts": contrasts}
        section = sections.augmentation_section(
            scores, summary, contrasts, **sides, differences=differences
        )
        figure = figures.augmentation(runs, summary, contrasts, order, data)
    elif isinstance(study, Budget):
        summary, gains = tables.spread(scores, ["label", "tiles"]), tables.gains(scores)
        comparison = {"gains": gains}
        section = sections.budget_section(scores, summary, gains)
        figure = figures.budget(runs, summary, order, data)
    else:
        summary, pairs = tables.spread(scores, ["label"]), tables.pairs(scores)
        comparison = {"pairs": pairs}
        section = sections.seeds_section(scores, summary, pairs)
        figure = figures.seeds(runs, pairs, order, data)
        ranks = tables.ranks(scores).add_prefix("rank_").reset_index(drop=True)
        summary = summary.join(ranks)
    return StudyResults({"summary": summary, "runs": runs, **comparison}, section, figure)
