from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from page_reader import PageReader
from result_files import ATTEMPTS, OPEN, Pages, add_attempt, add_results, build, set_missed

from roofseg.report.tile_pictures import MAX_TILES

Tiles = Mapping[str, tuple[int, Mapping[str, list[str]]]]
MINUS = "\N{MINUS SIGN}"
ONE = {"better": ATTEMPTS["better"]}


def built(root: Path, attempts: Tiles, dataset: str = "city") -> Pages:
    """Build the pages of these attempts only."""
    return build(add_results(root, attempts), list(attempts), dataset)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    root = add_results(tmp_path_factory.mktemp("report"))
    add_attempt(root, "leftover", 0)
    return build(root)


@pytest.fixture(scope="module")
def page(pages: Pages) -> PageReader:
    return PageReader(pages.html)


@pytest.fixture(scope="module")
def text(pages: Pages) -> str:
    return pages.text


def test_the_page_needs_nothing_but_itself(page: PageReader, pages: Pages) -> None:
    assert not page.open
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form")
    ids = {f"#{element['id']}" for _, element in page.elements if "id" in element}
    for reference in page.references:
        assert reference.startswith("data:image/jpeg;base64,") or reference in ids
    assert "://" not in pages.html
    named = [element["id"] for _, element in page.elements if "id" in element]
    assert len(named) == len(set(named))


def test_every_attempt_has_its_scores_and_status(page: PageReader, text: str) -> None:
    head = ["attempt", "val IoU", "", "val F1", "test IoU", "", "test F1"]
    start = page.rows.index(head)
    assert page.rows[start + 1 : start + 4] == [
        ["better", "0.875", "leader", "0.933", "0.875", "leader", "0.933"],
        ["worse", "0.625", "behind", "0.769", "0.625", "behind", "0.769"],
        ["sam no SAM weights", "0.250", "behind", "0.400", "sealed", "", "sealed"],
    ]
    assert "| `worse`              |   0.625 |" in text
    assert "| `sam` no SAM weights |   0.250 |" in text
    assert "**better** leads on validation with an IoU of 0.875" in text
    assert "Not above it: **sam (no SAM weights)**." in text


def test_comparisons_show_difference_p_and_verdict(page: PageReader) -> None:
    head = ["attempt", "val IoU", "p", " ", "test IoU", "p", " "]
    start = page.rows.index(head)
    both = [f"{MINUS}0.250", "< 0.001", "behind"] * 2
    assert page.rows[start + 1] == ["worse", *both]
    assert page.rows[start + 2][4:] == ["sealed", "", ""]
    assert page.rows[page.rows.index(["attempt", "better", "worse"]) + 1 :][:2] == [
        ["worse", f"{MINUS}0.250 behind", ""],
        ["sam no SAM weights", f"{MINUS}0.625 behind", f"{MINUS}0.375 behind"],
    ]
    assert "worse and sam (no SAM weights) are behind." in page.text


def test_an_attempt_as_good_as_the_leader_ties_with_it(tmp_path: Path) -> None:
    text = built(tmp_path, {"one": (4, OPEN), "other": (4, OPEN)}).text
    assert "other ties with it: on these tiles the difference may be chance." in text
    assert "| `other` |   0.750 | tie    |" in text


@pytest.mark.whole
def test_the_verdict_covers_val_and_test(tmp_path: Path) -> None:
    root = add_results(tmp_path, {name: (2, OPEN) for name in ("best", "close", "ahead")})
    for name, missed in {"best": [20, 30, 25], "close": [22, 24, 29], "ahead": [5, 8, 9]}.items():
        set_missed(root, name, "val", {"best": [5, 5]}.get(name, [10, 12]))
        set_missed(root, name, "test", missed)
    pages = build(root, ["best", "close", "ahead"])
    assert (
        "Its test IoU is 0.750 [0.626, 0.874]; ahead scores higher there; close ties" in pages.text
    )
    assert "tie</text>" in pages.html  # on both
    assert "ahead on test</text>" in pages.html


def test_measures_have_intervals_over_the_tiles(tmp_path: Path) -> None:
    root = add_results(tmp_path, ONE)
    set_missed(root, "better", "val", [24, 26])
    page = PageReader(build(root, ["better"]).html)
    assert ["better", "1.000", "0.750 [0.623, 0.877]"] in page.rows


def test_an_attempt_whose_interval_contains_the_floor_is_named(tmp_path: Path) -> None:
    root = add_results(tmp_path, ONE)
    set_missed(root, "better", "val", [70, 40])
    text = build(root, ["better"]).text
    assert "Every attempt is above it. It lies within the interval of **better**" in text


def test_caveats_come_before_any_number(page: PageReader, tmp_path: Path) -> None:
    shown = page.text[: page.text.index("leads on validation")]
    assert "No SAM weights. The encoder of sam started from random weights" in shown
    assert "worse: scored on test with more than one recipe, or on an earlier version" in shown
    assert "one training with one seed" in shown
    assert "Synthetic" not in shown
    pages = built(tmp_path, ONE, dataset="sample")
    for said in (PageReader(pages.html).text, pages.text, pages.headline):
        before = said[: said.find("leads on validation")]
        assert "generated" in before
        assert "say nothing about real roofs" in before
        assert "SAM weights" not in said
        assert "more than one recipe" not in said


def test_pictures_say_what_they_show(page: PageReader) -> None:
    alts = [element["alt"] or "" for element in page.all("img")]
    assert len(alts) == 2 * (2 + 3) + 3 * (2 + 2), "image, truth, and who was scored; val and test"
    assert "v1: the image" in alts
    assert "NA: sam (no SAM weights), IoU 0.250" in alts
    assert "t3: worse, IoU 0.625" in alts
    assert not [alt for alt in alts if alt.startswith("t1: sam")]
    charts = [element for element in page.all("div") if element.get("role") == "img"]
    assert len(charts) == len(page.all("svg")) == 8
    assert all(element["aria-label"] for element in charts)


def test_looks_environment_and_commands_are_listed(page: PageReader, text: str) -> None:
    assert ["worse", "a", "look", "", "", ""] in page.rows
    assert ["worse", "b", "reproduced", "", "", ""] in page.rows
    assert sum(row[:1] == ["worse"] and row[2:3] == ["look"] for row in page.rows) == 2
    assert ["better", "0123456789ab", "1" * 12, "2.14.1", "cpu (AVX512)", "bf16-mixed"] in page.rows
    for said in (page.text, text):
        assert "pins torch 2.14.1, numpy 2.4.6 and their dependencies" in said
        assert "$ make repro" in said
        assert "$ dvc repro --force --single-item train@better evaluate@better" in said


def test_costs_and_measures_of_every_attempt(page: PageReader) -> None:
    [start] = [index for index, row in enumerate(page.rows) if "GMAC per Mpx" in row]
    assert page.rows[start + 2] == [
        "worse", "6.00 M, 5.15 M trained", "50.0", "24.0", "25.0", "1.2", "1.5", "2.35", "30.00",
    ]  # fmt: skip
    assert ["attempt", "precision", "recall"] in page.rows
    assert "Training ran on cpu (bf16-mixed);" in page.text
    assert "Mapping ran on cpu (32-true), without" in page.text


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    tile = "\"><script>alert('1')<img src=x onerror=alert(2)>"
    dataset = "<b onclick=x>city & co"
    pages = built(tmp_path, {"better": (2, {"val": [tile, "007"]})}, dataset)
    read = PageReader(pages.html)
    assert not read.open
    assert not read.all("script", "b")
    assert all(element["src"].startswith("data:image/") for element in read.all("img"))  # type: ignore
    assert f"{tile}: the image" in [element["alt"] for element in read.all("img")]
    assert dataset in read.text
    for text in (pages.text, pages.headline):
        assert "<b" not in text.replace("\\<", "")


def test_markdown_has_complete_tables_and_no_pictures(text: str) -> None:
    assert not [sign for sign in ("data:", "<img", "![", "<svg") if sign in text]
    for before, line in pairwise(text.splitlines()):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|"), line
    assert "leftover" not in text


def test_only_some_of_many_tiles_are_shown(tmp_path: Path) -> None:
    many = {"better": (2, {"val": [f"tile{index}" for index in range(MAX_TILES + 5)]})}
    read = PageReader(built(tmp_path, many).html)
    assert len(read.all("img")) == 3 * MAX_TILES
    assert f"{MAX_TILES} of {MAX_TILES + 5} tiles, evenly spaced" in read.text


def test_sealed_test_has_no_column_and_no_look(tmp_path: Path) -> None:
    read = PageReader(built(tmp_path, {"sam": ATTEMPTS["sam"]}).html)
    assert ["attempt", "val IoU", "", "val F1"] in read.rows
    assert "None: no recipe is final" in read.text
    assert "test is sealed" in read.text
    assert "Against the leader" not in read.text


@pytest.mark.whole
def test_val_tiles_of_known_and_unknown_gsd_have_separate_charts(tmp_path: Path) -> None:
    root = add_results(tmp_path, ONE)
    path = root / "metrics/attempts/better/sizes.csv"
    sizes = pd.read_csv(path)
    pd.concat([sizes, sizes.assign(unit="px")]).to_csv(path, index=False)
    html = build(root, ["better"]).html
    assert "area, m\N{SUPERSCRIPT TWO}" in html
    assert "area, px" in html
    # If the GSD is unknown on test only, val has no chart in pixels.
    sizes.loc[sizes.split == "test", "unit"] = "px"
    sizes.to_csv(path, index=False)
    assert "area, px" not in build(root, ["better"]).html
