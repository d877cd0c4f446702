"""The page of all studies: what each found, its tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from roofseg.files import Image
from roofseg.pages import Cell, Figure, Page, Prose, Section, Table, data_uri, html, with_interval
from roofseg.tuning_table import DONE, tuned_keys, winners

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
        section: that of `roofseg.study_results`.
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


def tuning_section(table: pd.DataFrame, figures: Mapping[str, Image]) -> Section:
    """Tuning: the best run of each attempt, and every run.

    Args:
        table: `roofseg.tuning_table.tuning_table`.
        figures: (H, W, 3) uint8 RGB, by caption.
    """
    keys = tuned_keys(table)
    done = table[table.state == DONE]
    best = winners(table)
    words = frozenset({"attempt", "engine", "state", "", *keys})
    pictures = [
        Figure(
            caption, f"{caption} The numbers are in the table below.", source=data_uri(each, WIDTH)
        )
        for caption, each in figures.items()
    ]
    return Section(
        "Tuning",
        [
            Prose(
                f"As `make tuning-report` gathered them last: {len(done)} runs were scored to "
                "their end. The best of several runs on the same few tiles flatters: the more "
                "runs, the more. A **tie** cannot be told from its "
                "attempt's best by these tiles."
            ),
            Table(
                "The best run of each attempt.",
                ["attempt", "engine", *keys, "val IoU"],
                [
                    [
                        Cell(str(row["attempt"]), code=True),
                        str(row["engine"]),
                        *(_value(row[key]) for key in keys),
                        f"{row['val_iou']:.3f}",
                    ]
                    for row in best.to_dict("records")
                ],
                words,
            ),
            *pictures,
            Table(
                "Every run, with its difference in IoU to its attempt's best and the paired 95 % "
                "interval over tiles.",
                ["attempt", "engine", "state", *keys, "val IoU", "difference", ""],
                [
                    [
                        Cell(str(row["attempt"]), code=True),
                        str(row["engine"]),
                        str(row["state"]),
                        *(_value(row[key]) for key in keys),
                        with_interval(row["val_iou"], float("nan"), float("nan")),
                        with_interval(row["difference"], row["low"], row["high"]),
                        "tie" if row["tie"] == "yes" else "",
                    ]
                    for row in table.to_dict("records")
                ],
                words,
            ),
        ],
    )


def _value(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
