"""The pages of the studies: one in Markdown for each study, and one in HTML for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roofseg.core.images import Image
from roofseg.pages.page import (
    Figure,
    Page,
    Prose,
    Section,
    data_uri,
    html,
    markdown,
)
from roofseg.results.disclaimers import SYNTHETIC, SYNTHETIC_DATASETS

WIDTH = 1400  # pixels of a figure: two for each pixel that a screen shows

TITLES = {"budget": "Data budget", "seeds": "Seeds", "augmentation": "Augmentation"}
CAPTIONS = {
    "budget": (
        "Val IoU against the number of training tiles: a point per run, a line through the means "
        "over seeds, with bars from the worst seed to the best."
    ),
    "seeds": (
        "Val IoU of every seed, and the mean lead of one attempt over another with its 95 % "
        "interval over seeds."
    ),
    "augmentation": (
        "Val IoU under each preset, from mild to strong, and the preference for mild presets with "
        "its 95 % interval."
    ),
}


def study_markdown(dataset: str, patch_size: int, section: Section) -> str:
    """The page of one study, in Markdown. ``patch_size`` is in pixels."""
    return markdown(
        Page(
            title=f"Study: {section.title.lower()}",
            lead=f"Dataset `{dataset}`, patches of {patch_size} px.",
            sections=[section],
            caveats=_caveats(dataset),
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
            caveats=_caveats(dataset),
        )
    )


def with_figure(name: str, section: Section, picture: Image) -> Section:
    """Insert the study's figure after the first block of its section.

    Args:
        name: the study's name, a key of `CAPTIONS`.
        section: the section in `roofseg.studies.report.results.StudyResults`.
        picture: (H, W, 3) uint8 RGB.
    """
    first, *rest = section.blocks
    alt = f"{section.title}: the numbers are in the tables of this section."
    figure = Figure(CAPTIONS[name], alt, source=data_uri(picture, WIDTH))
    return Section(section.title, [first, figure, *rest])


def unfinished(name: str, finished: int, runs: int) -> Section:
    """The section of a study of which only ``finished`` of its ``runs`` have a record."""
    return Section(
        TITLES[name],
        [
            Prose(
                f"Not finished: {finished} of {runs} runs are done. `roofseg studies {name}` "
                "runs the others."
            )
        ],
    )


def _caveats(dataset: str) -> Mapping[str, str]:
    if dataset not in SYNTHETIC_DATASETS:
        return {}
    return {"Synthetic": SYNTHETIC[0].upper() + SYNTHETIC[1:]}
