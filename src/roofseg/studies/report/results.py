"""The results of a study (tables, a section that describes them, a figure), and their pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.core.images import Image
from roofseg.pages.page import Page, Section, html, markdown
from roofseg.recipe.params import Params
from roofseg.results.disclaimers import data_label, standard_caveats
from roofseg.results.seed_spread import COLUMNS, digest_without_seed, overrides_text
from roofseg.studies.declaration import Augmentations, Budget, Folds, Study
from roofseg.studies.report import figures, sections, tables
from roofseg.studies.report.cross_validation import fold_tables, folds_section
from roofseg.studies.report.records import finished_runs, read_record, read_records


@dataclass(frozen=True)
class StudyResults:
    """``tables`` by file name without suffix, a page section, and a figure (H, W, 3) uint8 RGB."""

    tables: dict[str, pd.DataFrame]
    section: Section
    figure: Image


def gather(name: str, study: Study, params: Params, records: Path) -> StudyResults:
    """Read the records of all runs of a study and summarize them.

    Args:
        name: one of `roofseg.studies.declaration.STUDY_NAMES`.
        study: as studies.yaml declares it.
        params: the parameters, with the attempts of studies.yaml.
        records: the folder of records, see `read_record`.

    Raises:
        UserError: a record is missing or broken, or the tiles of folds do not fit each other
    """
    scores = read_records(records, name, study)
    if isinstance(study, Folds):
        _check_division(scores, study, records / name)
    order = {recipe.label(key): at for at, (key, recipe) in enumerate(params.recipes().items())}
    data, differences = data_label(params.dataset, params.patch_size), {}
    if isinstance(study, Augmentations):
        differences = study.other_differences(params)
    return summarize(study, scores, order, data, differences)


def _check_division(scores: pd.DataFrame, study: Folds, folder: Path) -> None:
    """Raise UserError unless the runs are of one division, and score each of its tiles once."""
    remedy = "Run `roofseg studies folds`."
    if scores.division.nunique() > 1 or set(scores.folds) != {study.folds}:
        found = ", ".join(map(str, sorted(set(scores.folds))))
        raise UserError(
            f"{folder}: the records are of different divisions into folds, or of an earlier one: "
            f"found {found} folds; expected one division into {study.folds}. {remedy}"
        )
    tiles = scores.groupby("label").tile.agg(frozenset)
    if tiles.nunique() > 1 or scores.duplicated(["label", "tile"]).any():
        raise UserError(f"{folder}: expected one score of each tile for each attempt. {remedy}")


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
        differences: `Augmentations.other_differences`; empty for the other studies.
    """
    if isinstance(study, Folds):
        found = fold_tables(scores)
        figure = figures.folds(found.runs, found.pairs, found.single_folds, order, data)
        return StudyResults(found._asdict(), folds_section(scores, found, figure), figure)
    runs = tables.per_run(scores)
    if isinstance(study, Augmentations):
        comparison, summary = "contrasts", tables.spread(scores, ["label", "augmentation"])
        compared = tables.contrasts(
            scores,
            frozen=study.frozen,
            unfrozen=study.unfrozen,
            mild=study.mild,
            strong=study.strong,
        )
        figure = figures.augmentation(runs, summary, compared, order, data)
        section = sections.augmentation_section(
            scores, summary, compared, figure, study, differences
        )
    elif isinstance(study, Budget):
        comparison, summary = "gains", tables.spread(scores, ["label", "tiles"])
        compared = tables.gains(scores)
        figure = figures.budget(runs, summary, order, data)
        section = sections.budget_section(scores, summary, compared, figure)
    else:
        comparison, summary = "pairs", tables.spread(scores, ["label"])
        compared = tables.pairs(scores)
        figure = figures.seeds(runs, compared, order, data)
        section = sections.seeds_section(scores, summary, compared, figure)
        ranks = tables.ranks(scores).add_prefix("rank_").reset_index(drop=True)
        summary = summary.join(ranks)
    return StudyResults({"summary": summary, "runs": runs, comparison: compared}, section, figure)


def seed_spread(
    study: Study, params: Params, records: Path, recipes: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """The spread over seeds of attempts, for the leaderboard.

    Runs whose record does not match the recipes in force do not count.

    Args:
        study: the seeds study.
        params: the parameters, with the attempts of studies.yaml.
        records: the folder of records, see `read_record`.
        recipes: `roofseg.recipe.digest.recipe_of` of each attempt to include.

    Returns:
        One row per attempt with at least two runs, with `roofseg.results.seed_spread.COLUMNS`.
    """
    runs, overrides = study.runs(), overrides_text(study.overrides)
    finished = finished_runs(records, "seeds", study, params)
    rows = []
    for attempt, recipe in recipes.items():
        own = [run for run in finished if runs[run]["attempt"] == attempt]
        if len(own) < 2:
            continue
        scores = pd.concat(read_record(records, "seeds", run) for run in own)
        rows.append(
            {
                "dataset": params.dataset,
                "patch_size": params.patch_size,
                **tables.spread(scores, ["attempt"]).iloc[0],
                "overrides": overrides,
                "recipe": digest_without_seed(recipe, overrides),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def study_markdown(dataset: str, patch_size: int, section: Section) -> str:
    """The page of one study, in Markdown. ``patch_size`` is in pixels."""
    return markdown(
        Page(
            title=f"Study: {section.title.lower()}",
            lead=f"Dataset `{dataset}`, patches of {patch_size} px.",
            sections=[section],
            caveats=standard_caveats(dataset),
        )
    )


def studies_html(dataset: str, patch_size: int, sections: Sequence[Section]) -> str:
    """The page of all studies, in HTML. ``patch_size`` is in pixels."""
    return html(
        Page(
            title=f"Studies on {dataset}",
            lead="Experiments in addition to the leaderboard, on patches of "
            f"{patch_size} x {patch_size} px. All scores are on val: no study reads test.",
            sections=sections,
            caveats=standard_caveats(dataset),
        )
    )
