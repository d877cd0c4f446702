from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from markupsafe import Markup
from small_entries import entry

from roofseg.drawing import COLOURS
from roofseg.pages.page import TEMPLATES
from roofseg.report import charts
from roofseg.report.attempts import Attempt

NAN = float("nan")
POINTS = pd.DataFrame(
    {"threshold": [0.1, 0.5, 0.9], "precision": [0.4, 0.6, 0.9], "recall": [0.9, 0.7, 0.2]}
)
BINS = pd.DataFrame({"probability": [0.1, NAN, 0.9], "building": [0.2, NAN, 0.7]})


def attempt(index: int, name: str = "one", val: float = 0.7, **tables: Any) -> Attempt:
    """An attempt with a curve of three epochs, the last of which has no IoU."""
    epochs = pd.DataFrame({"epoch": [1, 2, 3], "val_iou": [0.1, 0.5 - index / 20, NAN]})
    made = entry(name, {"val": [val, 0.9]})
    return dataclasses.replace(made, index=index, **{"epochs": epochs, **tables})


def sizes(*shares: float) -> pd.DataFrame:
    names = ["0-50", "50-100", "100+"][: len(shares)]
    return pd.DataFrame({"unit": "m2", "size": names, "share_found": shares})


SCORES = [
    entry("best", {"val": [0.7, 0.9], "test": [0.6, 0.4]}),
    dataclasses.replace(entry("single tile", {"val": [0.5]}), index=1),
]
NOTES = ["leader", ""]
IOU = [
    {split: scored.score(split, "iou") for split in ("val", "test") if scored.opened(split)}
    for scored in SCORES
]
DRAWN: dict[str, Callable[[], Markup]] = {
    "intervals": lambda: charts.intervals(SCORES, IOU, NOTES, 0.3, "IoU"),
    "convergence": lambda: charts.convergence([attempt(index) for index in range(3)]),
    "precision-recall": lambda: charts.precision_recall(
        [attempt(index, curve=POINTS) for index in (0, 4)]
    ),
    "reliability": lambda: charts.reliability(
        [attempt(index, reliability=BINS) for index in (0, 1)]
    ),
    "by size": lambda: charts.by_size(
        [attempt(0, sizes=sizes(0.2, NAN)), attempt(1, sizes=sizes(0.4, 1))], "m2", "m2"
    ),
    "cost": lambda: charts.cost([attempt(0)], [1.5], "minutes", "cost-minutes"),
    "cost in decades": lambda: charts.cost([SCORES[1], attempt(0)], [1, 90], "minutes", "cost-b"),
}
STYLE = (TEMPLATES / "page.css").read_text()


def letters(svg: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ET.fromstring(svg).iter("text")]


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_takes_its_colours_from_the_page(name: str) -> None:
    svg = DRAWN[name]()
    assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
    assert "currentColor" in svg
    assert "var(--series-0)" in svg
    for used in set(re.findall(r"var\((--[\w-]+)\)", svg)):
        assert f"{used}:" in STYLE


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_is_reproducible_and_refers_only_to_its_own_parts(name: str) -> None:
    svg = DRAWN[name]()
    assert DRAWN[name]() == svg
    assert "://" not in svg
    root = ET.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href=\"#([^\"]+)\"|url\(#([^)]+)\)", svg)) <= {
        pair for name in ids for pair in ((name, ""), ("", name))
    }


def test_ids_of_charts_on_one_page_are_unique() -> None:
    ids = [name for draw in DRAWN.values() for name in re.findall(r" id=\"([^\"]+)\"", draw())]
    assert ids
    assert len(ids) == len(set(ids))


def test_names_are_text_and_no_markup_or_formula() -> None:
    hostile = attempt(0, "$a_1$ <b> & co")
    assert "$a_1$ <b> & co" in letters(charts.intervals([hostile], IOU[:1], [""], 0.3, "IoU"))


def test_intervals_show_val_test_and_status() -> None:
    svg = charts.intervals(SCORES, IOU, NOTES, 0.3, "IoU")
    assert {"best", "single tile", "leader"} <= set(letters(svg))
    # One hollow mark: only the first attempt has a test score.
    hollow = svg.count("fill: var(--paper); stroke: var(--series")
    assert hollow == 1


def test_colours_repeat_for_many_attempts() -> None:
    assert len(COLOURS) == charts.SERIES
    assert [charts.series(attempt(index)) for index in (0, 6, 7, 13)] == [0, 6, 0, 6]
    assert f"--series-{charts.SERIES - 1}:" in STYLE
    assert "var(--series-0)" in charts.convergence([attempt(7)])


def test_a_curve_without_a_finite_value_has_no_best_epoch() -> None:
    nothing = pd.DataFrame({"epoch": [1, 2], "val_iou": [NAN, NAN]})
    svg = charts.convergence([attempt(0), attempt(1, epochs=nothing)])
    assert "var(--series-0)" in svg


def test_costs_that_span_a_decade_have_a_logarithmic_axis() -> None:
    shown = letters(DRAWN["cost in decades"]())
    assert {"1", "10", "100"} & set(shown) >= {"1", "10"}
    assert "0.0" in letters(DRAWN["cost"]())


def test_a_class_without_buildings_keeps_its_place() -> None:
    svg = charts.by_size([attempt(0, sizes=sizes(0.2, 0.4, NAN))], "m2", "m2")
    assert {"0-50", "50-100", "100+"} <= set(letters(svg))
