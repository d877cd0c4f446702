from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from roofseg.drawing import COLOURS
from roofseg.pages.page import TEMPLATES
from roofseg.report import charts
from roofseg.results.intervals import Interval

NAN = float("nan")
CURVES = {
    index: pd.DataFrame({"epoch": [1, 2, 3], "val_iou": [0.1, 0.5 - index / 20, NAN]})
    for index in range(3)
}
POINTS = pd.DataFrame(
    {"threshold": [0.1, 0.5, 0.9], "precision": [0.4, 0.6, 0.9], "recall": [0.9, 0.7, 0.2]}
)
BINS = pd.DataFrame({"probability": [0.1, 0.9], "building": [0.2, 0.7]})
SCORES = [
    charts.Score("best", 0, Interval(0.8, 0.7, 0.9), Interval(0.6, 0.4, 0.7), "leader"),
    charts.Score("single tile", 1, Interval(0.5, NAN, NAN), None),
]
DRAWN: dict[str, Callable[[], Markup]] = {
    "intervals": lambda: charts.intervals(SCORES, 0.3),
    "convergence": lambda: charts.convergence(CURVES),
    "precision-recall": lambda: charts.precision_recall({0: POINTS, 4: POINTS}),
    "reliability": lambda: charts.reliability({0: BINS, 1: BINS}),
    "by size": lambda: charts.by_size(["0-50", "50+"], {0: [0.2, NAN], 1: [0.4, 1]}, "m2"),
    "cost": lambda: charts.cost({0: (1.5, Interval(0.5, 0.4, 0.6))}, "minutes", "cost-minutes"),
    "cost in decades": lambda: charts.cost(
        {0: (1, Interval(0.5, NAN, NAN)), 1: (90, Interval(0.5, 0.4, 0.6))}, "minutes", "cost-b"
    ),
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
    score = charts.Score("$a_1$ <b> & co", 0, Interval(0.5, 0.4, 0.6), None)
    assert "$a_1$ <b> & co" in letters(charts.intervals([score], 0.3))


def test_intervals_show_val_test_and_status() -> None:
    svg = charts.intervals(SCORES, 0.3)
    assert {"best", "single tile", "leader"} <= set(letters(svg))
    # One hollow mark: only the first attempt has a test score.
    hollow = svg.count("fill: var(--paper); stroke: var(--series")
    assert hollow == 1


def test_colours_repeat_for_many_attempts() -> None:
    assert len(COLOURS) == charts.SERIES
    assert [charts.series(index) for index in (0, 6, 7, 13)] == [0, 6, 0, 6]
    assert f"--series-{charts.SERIES - 1}:" in STYLE
    assert "var(--series-0)" in charts.convergence({7: CURVES[0]})


def test_a_curve_without_a_finite_value_has_no_best_epoch() -> None:
    nothing = pd.DataFrame({"epoch": [1, 2], "val_iou": [np.nan, np.nan]})
    svg = charts.convergence({0: CURVES[0], 1: nothing})
    assert "var(--series-0)" in svg


def test_costs_that_span_a_decade_have_a_logarithmic_axis() -> None:
    shown = letters(DRAWN["cost in decades"]())
    assert {"1", "10", "100"} & set(shown) >= {"1", "10"}
    assert "0.0" in letters(DRAWN["cost"]())


def test_a_class_without_buildings_keeps_its_place() -> None:
    svg = charts.by_size(["0-50", "50-100", "100+"], {0: [0.2, 0.4, NAN]}, "m2")
    assert {"0-50", "50-100", "100+"} <= set(letters(svg))
