"""The section on tuning of the studies' page."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from roofseg.core.images import Image
from roofseg.pages.page import Cell, Figure, Prose, Section, Table, data_uri, with_interval
from roofseg.studies.report.page import WIDTH
from roofseg.tuning.table import DONE, tuned_keys, winners


def tuning_section(table: pd.DataFrame, figures: Mapping[str, Image]) -> Section:
    """Tuning: the best run of each attempt, and every run.

    Args:
        table: `roofseg.tuning.table.tuning_table`.
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
