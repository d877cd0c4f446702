"""The section on tuning, read from the page that shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from page_reader import PageReader

from roofseg.studies.report.results import studies_html
from roofseg.tuning.section import tuning_section
from roofseg.tuning.table import HEAD, SCORES

PICTURE = np.full((20, 40, 3), 200, np.uint8)
RUNS = [
    ("unet", 1, "a", "done", 0.001, "light", 0.71, 0.82, -0.02, -0.05, 0.01, 0.3, "tie"),
    ("unet", 2, "b", "done", 0.003, "heavy", 0.73, 0.84, 0.0, 0.0, 0.0, 1.0, "leader"),
    ("unet", 3, "c", "done", 0.1, "light", 0.59, 0.8, -0.14, -0.2, -0.1, 0.01, "behind"),
    ("sam", 1, "d", "not queued", 0.001, None, *[np.nan] * 6, None),
]
TABLE = pd.DataFrame(RUNS, columns=[*HEAD, "lr", "augmentation", *SCORES])


def test_the_section_shows_the_best_of_each_attempt_and_every_run() -> None:
    section = tuning_section(TABLE, {"lr": PICTURE})
    page = PageReader(studies_html("city", 64, [section]))
    assert page.rows[0] == ["attempt", "lr", "augmentation", "val IoU"]
    assert page.rows[1] == ["unet", "0.003", "heavy", "0.730"]
    assert page.rows[2][:3] == ["attempt", "state", "lr"]
    minus, dash = "\N{MINUS SIGN}", "\N{EN DASH}"
    assert page.rows[3][2:] == [
        "0.001", "light", "0.710", f"{minus}0.020 [{minus}0.050, 0.010]", "tie",
    ]  # fmt: skip
    assert [row[-1] for row in page.rows[4:6]] == ["leader", "behind"]
    assert page.rows[6][3:] == ["", dash, dash, ""]
    assert "3 runs were finished when" in page.text
    assert "the run may be as good as the best" in page.text
    assert "all pairs" not in page.text
    assert [image["alt"] for image in page.all("img")] == [
        "Val IoU against lr; a dot per run. The numbers are in the table below."
    ]


def test_one_finished_run_is_singular() -> None:
    section = tuning_section(TABLE[TABLE.name.isin(["b", "d"])], {})
    assert "1 run was finished when" in PageReader(studies_html("city", 64, [section])).text
