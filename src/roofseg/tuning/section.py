"""The section on tuning, for the page of the studies."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from roofseg.core.images import Image
from roofseg.pages.page import Cell, Figure, Prose, Section, Table, data_uri, with_interval
from roofseg.tuning.table import DONE, tuned_keys, winners

WIDTH = 1400  # of a figure, in pixels: two for each pixel of a screen


def tuning_section(table: pd.DataFrame, figures: Mapping[str, Image]) -> Section:
    """Make the section: the best run of each attempt, the figures, and every run.

    Args:
        table: `roofseg.tuning.table.tuning_table`, with the attempts' names as pages show them.
        figures: (H, W, 3) uint8 RGB, by caption.
    """
    keys = tuned_keys(table)
    words = frozenset({"attempt", "state", "", *keys})

    def start(row: Mapping[str, object], *columns: str) -> list[Cell | str]:
        shown = (_shown(row[column]) for column in (*columns, *keys))
        return [Cell(str(row["attempt"]), code=True), *shown]

    return Section(
        "Tuning",
        [
            Prose(
                f"{sum(table.state == DONE)} runs were finished when `roofseg tuning-report` last "
                "ran. The best of several runs on the same few tiles is biased upwards, and more "
                "so with more runs. A **tie** cannot be told from its attempt's best by these "
                "tiles."
            ),
            Table(
                "The best run of each attempt.",
                ["attempt", *keys, "val IoU"],
                [
                    [*start(row), f"{row['val_iou']:.3f}"]
                    for row in winners(table).to_dict("records")
                ],
                words,
            ),
            *(
                Figure(
                    caption,
                    f"{caption} The numbers are in the table below.",
                    source=data_uri(picture, WIDTH),
                )
                for caption, picture in figures.items()
            ),
            Table(
                "Every run, with its difference in IoU to its attempt's best and the paired 95 % "
                "interval over tiles.",
                ["attempt", "state", *keys, "val IoU", "difference", ""],
                [
                    [
                        *start(row, "state"),
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


def _shown(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
