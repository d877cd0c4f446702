"""The page of all studies: what each found, its tables and figures."""

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
)

WIDTH = 1400  # pixels of a figure: two for each of a screen's

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


def study_page(
    dataset: str, patch_size: int, sections: Sequence[Section], caveats: Mapping[str, str]
) -> str:
    """The HTML of the page."""
    return html(
        Page(
            title=f"Studies on {dataset}",
            lead=f"What was tried beside the leaderboard, on patches of {patch_size} x "
            f"{patch_size} px. Scores are of validation: no study reads test.",
            sections=sections,
            caveats=caveats,
        )
    )


def with_figure(name: str, section: Section, picture: Image) -> Section:
    """A study's section with its figure after what it says first.

    Args:
        name: of the study, a key of `CAPTIONS`.
        section: that of `roofseg.studies.report.results`.
        picture: (H, W, 3) uint8 RGB.
    """
    first, *rest = section.blocks
    alt = f"{section.title}: the numbers are in the tables of this section."
    figure = Figure(CAPTIONS[name], alt, source=data_uri(picture, WIDTH))
    return Section(section.title, [first, figure, *rest])


def missing(name: str, title: str, there: int, runs: int) -> Section:
    """In the place of a study that was not run to its end."""
    return Section(
        title,
        [
            Prose(
                f"Not run to its end: {there} of {runs} runs are there. "
                f"`dvc repro studies/dvc.yaml:gather_{name}` runs the others."
            )
        ],
    )
