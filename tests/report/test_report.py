from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from graph import ROOT
from page_reader import PageReader
from records import trained_record
from report.test_leaderboard import FLOOR, RECIPES, add_attempt, build
from ruamel.yaml import YAML

from roofseg import metrics
from roofseg.core.errors import UserError
from roofseg.core.files import read_json, write_json
from roofseg.pages.page import TEMPLATES
from roofseg.recipe.params import Recipe
from roofseg.report.leaderboard_plots import MAX_ROWS
from roofseg.report.report import report

LOCK = "torch==2.14.1 \\\n    --hash=sha256:aa\nnumpy==2.4.6\nunrelated==1.0\n"
OPEN = {"val": ["v1", "NA"], "test": ["t1", "t2", "t3"]}
# Rows of 32 that each attempt gets wrong, and its tiles.
ATTEMPTS: dict[str, tuple[int, dict[str, list[str]]]] = {
    "worse": (6, OPEN),
    "better": (2, OPEN),
    "sam": (12, {"val": OPEN["val"]}),
}


def add_records(root: Path, recipes: dict[str, Recipe]) -> None:
    """What training says of itself, whole."""
    for name, recipe in recipes.items():
        record = trained_record(name, recipe)
        write_json(root / "metrics/attempts" / name / "training.json", record)


def add_results(root: Path, attempts: dict[str, Any] = ATTEMPTS, dataset: str = "city") -> Path:
    for name, (wrong, tiles) in attempts.items():
        add_attempt(root, name, wrong, tiles)
    recipes = {name: RECIPES.get(name, RECIPES["better"]) for name in attempts}
    add_records(root, recipes)
    write_json(root / "metrics/baselines.json", FLOOR)
    (root / "requirements.lock").write_text(LOCK)
    build(root, recipes, dataset)
    return root


def write(root: Path, attempts: list[str] | None = None) -> tuple[str, str]:
    """The report's HTML and Markdown."""
    report(
        attempts or list(ATTEMPTS),
        metrics=root / "metrics",
        plots=root / "plots",
        predictions=root / "predictions",
        lock=root / "requirements.lock",
        page=root / "report.html",
        text=root / "report.md",
    )
    return (root / "report.html").read_text(), (root / "report.md").read_text()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(root: Path) -> PageReader:
    return PageReader(write(root)[0])


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return write(root)[1]


def test_the_page_needs_nothing_but_itself(page: PageReader, root: Path) -> None:
    assert not page.open
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form")
    ids = {f"#{each['id']}" for _, each in page.elements if "id" in each}
    for reference in page.references:
        assert reference.startswith("data:image/jpeg;base64,") or reference in ids
    assert "://" not in (root / "report.html").read_text()
    named = [each["id"] for _, each in page.elements if "id" in each]
    assert len(named) == len(set(named))


def test_every_attempt_has_its_scores_and_standing(page: PageReader, text: str) -> None:
    head = ["attempt", "val IoU", "", "val F1", "test IoU", "", "test F1"]
    start = page.rows.index(head)
    assert page.rows[start + 1 : start + 4] == [
        ["better", "0.875 [0.875, 0.875]", "leader", "0.933 [0.933, 0.933]",
         "0.875 [0.875, 0.875]", "leader", "0.933 [0.933, 0.933]"],
        ["worse", "0.625 [0.625, 0.625]", "", "0.769 [0.769, 0.769]",
         "0.625 [0.625, 0.625]", "", "0.769 [0.769, 0.769]"],
        ["sam no SAM weights", "0.250 [0.250, 0.250]", "", "0.400 [0.400, 0.400]",
         "sealed", "", "sealed"],
    ]  # fmt: skip
    assert "| `worse` | 0.625 [0.625, 0.625] |" in text
    assert "| `sam` no SAM weights | 0.250 [0.250, 0.250] |" in text
    assert "**better** leads on validation with an IoU of 0.875 [0.875, 0.875]" in text
    assert "Not above it: **sam (no SAM weights)**." in text


def test_comparisons_say_difference_p_and_what_p_cannot_be(page: PageReader, text: str) -> None:
    head = ["attempt", "val IoU", "p", " ", "test IoU", "p", " "]
    start = page.rows.index(head)
    minus = "\N{MINUS SIGN}"
    val = f"{minus}0.250 [{minus}0.250, {minus}0.250]"
    assert page.rows[start + 1] == ["worse", val, "0.500", "behind", val, "0.250", "behind"]
    assert page.rows[start + 2][4:] == ["sealed", "", ""]
    assert "by exact sign flips" in text
    assert "cannot be below 0.5 on 2 tiles or 0.25 on 3 tiles" in text
    # Two tiles cannot tell noise from a difference, whatever an interval says.
    assert "does not rule out chance for worse and sam (no SAM weights)" in text


def test_an_attempt_as_good_as_the_leader_ties_with_it(tmp_path: Path) -> None:
    twins = {"one": (4, OPEN), "other": (4, OPEN)}
    text = write(add_results(tmp_path, twins), list(twins))[1]
    assert "other ties with it: these tiles cannot tell them apart" in text
    assert "| `other` | 0.750 [0.750, 0.750] | tie |" in text


def scored(root: Path, name: str, split: str, wrong: list[int]) -> None:
    """Give the tiles of a split other counts: of 100 pixels of building so many are missed."""
    folder = root / "metrics/attempts" / name
    tiles = pd.read_csv(folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False)
    here = tiles.split == split
    tiles.loc[here, ["tp", "fp", "fn"]] = [[100 - missed, 0, missed] for missed in wrong]
    tiles.to_csv(folder / "tiles.csv", index=False)
    scores = read_json(folder / "scores.json")
    scores[split] |= metrics.summarise(tiles[here])
    write_json(folder / "scores.json", scores)


def test_what_test_says_of_the_leader_is_told_beside_val(tmp_path: Path) -> None:
    recipes = {name: RECIPES["better"] for name in ("best", "close", "ahead")}
    for name in recipes:
        add_results(tmp_path, {name: (2, OPEN)})
    for name, missed in {"best": [20, 30, 25], "close": [22, 24, 29], "ahead": [5, 8, 9]}.items():
        scored(tmp_path, name, "val", {"best": [5, 5]}.get(name, [10, 12]))
        scored(tmp_path, name, "test", missed)
    build(tmp_path, recipes)
    html, text = write(tmp_path, list(recipes))
    assert "On test its IoU is 0.750 [0.700, 0.800]; ahead scores higher there; close ties" in text
    assert "tie on test</text>" in html
    assert "ahead on test</text>" in html


def test_no_p_value_is_shown_as_zero(tmp_path: Path) -> None:
    many = {"val": [f"tile{number}" for number in range(16)]}
    text = write(add_results(tmp_path, {"one": (2, many), "other": (6, many)}), ["one", "other"])[1]
    assert "| 3e-05 | behind |" in text
    assert "cannot be below 3.1e-05 on 16 tiles" in text


def test_measures_have_intervals_over_the_tiles(tmp_path: Path) -> None:
    add_results(tmp_path, {"better": ATTEMPTS["better"]})
    scored(tmp_path, "better", "val", [10, 40])
    build(tmp_path, {"better": RECIPES["better"]})
    page = PageReader(write(tmp_path, ["better"])[0])
    assert ["better", "1.000 [1.000, 1.000]", "0.750 [0.600, 0.900]"] in page.rows


def test_an_attempt_whose_interval_holds_the_floor_is_named(tmp_path: Path) -> None:
    add_results(tmp_path, {"better": ATTEMPTS["better"]})
    scored(tmp_path, "better", "val", [70, 40])
    build(tmp_path, {"better": RECIPES["better"]})
    text = write(tmp_path, ["better"])[1]
    assert "Every attempt is above it. It lies within the interval of **better**" in text


def test_caveats_come_before_any_number(root: Path, page: PageReader, tmp_path: Path) -> None:
    shown = page.text[: page.text.index("leads on validation")]
    assert "No SAM weights. The encoder of sam started from random weights" in shown
    assert "More than one recipe of worse was scored on these test tiles" in shown
    assert "one training with one seed" in shown
    assert "Synthetic" not in shown
    only = {"better": ATTEMPTS["better"]}
    html, text = write(add_results(tmp_path, only, dataset="sample"), ["better"])
    for said in (PageReader(html).text, text):
        before = said[: said.index("leads on validation")]
        assert "generated" in before
        assert "say nothing about real roofs" in before
        assert "SAM weights" not in said
        assert "More than one recipe" not in said


def test_pictures_say_what_they_show(page: PageReader) -> None:
    alts = [each["alt"] or "" for each in page.all("img")]
    assert len(alts) == 2 * (2 + 3) + 3 * (2 + 2), "image, truth, and who was scored; val and test"
    assert "v1: the image" in alts
    assert "NA: sam (no SAM weights), IoU 0.250" in alts
    assert "t3: worse, IoU 0.625" in alts
    assert not [alt for alt in alts if alt.startswith("t1: sam")]
    charts = [each for each in page.all("div") if each.get("role") == "img"]
    assert len(charts) == len(page.all("svg")) == 7
    assert all(each["aria-label"] for each in charts)


def test_looks_environment_and_commands_are_told(page: PageReader, text: str) -> None:
    assert ["worse", "a", "look", "", "", ""] in page.rows
    assert ["worse", "b", "reproduced", "", "", ""] in page.rows
    assert sum(row[:1] == ["worse"] and row[2:3] == ["look"] for row in page.rows) == 2
    assert ["better", "0123456789ab", "1" * 12, "2.14.1", "cpu", "bf16-mixed"] in page.rows
    for said in (page.text, text):
        assert "pins torch 2.14.1, numpy 2.4.6, and all" in said
        assert "$ make repro" in said
        assert "$ dvc repro --force --single-item train@better evaluate@better" in said


def test_costs_and_measures_of_every_attempt(page: PageReader) -> None:
    [start] = [index for index, row in enumerate(page.rows) if "GMAC per Mpx" in row]
    assert page.rows[start + 2] == [
        "worse", "6.00 M 5.15 M trained", "50.0", "24.0", "25.0", "1.2", "1.5", "2.3", "30.00",
    ]  # fmt: skip
    assert ["attempt", "precision", "recall"] in page.rows


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    tile = "\"><script>alert('1')<img src=x onerror=alert(2)>"
    dataset = "<b onclick=x>city & co"
    tiles = {"better": (2, {"val": [tile, "007"]})}
    html, text = write(add_results(tmp_path, tiles, dataset), ["better"])
    read = PageReader(html)
    assert not read.open
    assert not read.all("script", "b")
    assert all(each["src"].startswith("data:image/") for each in read.all("img"))  # type: ignore
    assert f"{tile}: the image" in [each["alt"] for each in read.all("img")]
    assert dataset in read.text
    assert "<b" not in text.replace("\\<", "")


def test_the_markdown_has_no_imagery_and_whole_tables(text: str) -> None:
    assert not [sign for sign in ("data:", "<img", "![", "<svg") if sign in text]
    for before, line in pairwise(text.splitlines()):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|"), line
    assert "leftover" not in text


def test_many_tiles_are_shown_in_part(tmp_path: Path) -> None:
    many = {"better": (2, {"val": [f"tile{index}" for index in range(MAX_ROWS + 5)]})}
    read = PageReader(write(add_results(tmp_path, many), ["better"])[0])
    assert len(read.all("img")) == 3 * MAX_ROWS
    assert f"{MAX_ROWS} of {MAX_ROWS + 5} tiles, at even steps" in read.text


def test_written_again_it_is_the_same_bytes(root: Path) -> None:
    assert write(root) == write(root)


def test_sealed_test_has_no_column_and_no_look(tmp_path: Path) -> None:
    read = PageReader(write(add_results(tmp_path, {"sam": ATTEMPTS["sam"]}), ["sam"])[0])
    assert ["attempt", "val IoU", "", "val F1"] in read.rows
    assert "None: no recipe is final" in read.text
    assert "test is sealed" in read.text
    assert "Against the leader" not in read.text


def test_tables_of_gsd_known_and_unknown_are_told_apart(tmp_path: Path) -> None:
    add_results(tmp_path, {"better": ATTEMPTS["better"]})
    path = tmp_path / "metrics/attempts/better/sizes.csv"
    sizes = pd.read_csv(path)
    pd.concat([sizes, sizes.assign(unit="px")]).to_csv(path, index=False)
    html, _ = write(tmp_path, ["better"])
    assert "area, m\N{SUPERSCRIPT TWO}" in html
    assert "area, px" in html


@pytest.mark.parametrize(
    "missing", ["requirements.lock", "metrics/leaderboard.json", "metrics/attempts/sam/sizes.csv"]
)
def test_what_is_missing_is_named_and_nothing_is_written(tmp_path: Path, missing: str) -> None:
    add_results(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=Path(missing).name):
        write(tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert not (tmp_path / "report.md").exists()


def test_the_stage_depends_on_the_templates_and_the_lock() -> None:
    stage = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["leaderboard"]
    templates = {path.relative_to(ROOT).as_posix() for path in TEMPLATES.iterdir()}
    assert templates | {"requirements.lock"} <= set(stage["deps"])


def test_scores_of_whole_tiles_have_columns_where_all_have_them(tmp_path: Path) -> None:
    add_results(tmp_path, {"better": ATTEMPTS["better"]})
    board = read_json(tmp_path / "metrics/leaderboard.json")
    board["attempts"][0] |= {f"val_full_tiles_iou{end}": 0.7 for end in ("", "_low", "_high")}
    write_json(tmp_path / "metrics/leaderboard.json", board)
    assert "val IoU, whole tiles" in write(tmp_path, ["better"])[1]


def test_whole_tiles_of_a_sealed_test_are_called_sealed(tmp_path: Path) -> None:
    add_results(tmp_path, {"better": ATTEMPTS["better"], "sam": ATTEMPTS["sam"]})
    board = read_json(tmp_path / "metrics/leaderboard.json")
    for row, value in zip(board["attempts"], (0.7, None), strict=True):
        row |= {f"{split}_full_tiles_iou": value or 0.6 for split in ("val", "test")}
        row["test_full_tiles_iou"] = value
    write_json(tmp_path / "metrics/leaderboard.json", board)
    page = PageReader(write(tmp_path, ["better", "sam"])[0])
    assert next(row[-2:] for row in page.rows if row[0].startswith("sam")) == ["0.600", "sealed"]
