from __future__ import annotations

import base64

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from page_reader import PageReader

from roofseg.pages.page import (
    Cell,
    Commands,
    Figure,
    Key,
    Page,
    Picture,
    PictureGrid,
    Prose,
    Section,
    Table,
    data_uri,
    html,
    markdown,
    with_interval,
)

SOURCE = "data:image/jpeg;base64,AAAA"
HOSTILE = "\"><script>alert('x')</script>|`*_&amp;"
# Names of all printable characters, with those that are markup drawn more often.
SIGNS = st.sampled_from("|\\`*_<>&\"'#[]~$")
NAMES = st.text(SIGNS | st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


def page(*blocks: object, **more: object) -> Page:
    return Page("A title", "A lead", [Section("One section", blocks)], **more)  # type: ignore


def table(*names: str) -> Table:
    return Table("Caption", ["name", "score"], [[name, "1"] for name in names], frozenset({"name"}))


@given(NAMES)
def test_names_are_shown_as_they_are_and_never_taken_for_html(name: str) -> None:
    picture = Picture(SOURCE, f"{name}: image", name)
    made = page(
        table(name),
        Figure("Caption", name, Markup("<svg></svg>"), legend=[Key(0, name)]),
        Figure("Caption", name, source=SOURCE),
        PictureGrid("Caption", [Cell(name)], [(name, [picture])]),
        Commands([name]),
        caveats={name: "Text"},
    )
    read = PageReader(html(made))
    assert not read.open
    assert read.rows[1] == [name, "1"]
    assert [element["alt"] for element in read.all("img")] == [name, f"{name}: image"]
    assert read.text.count(name) >= 5
    known = {"html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "p"}
    known |= {"aside", "strong", "section", "figure", "figcaption", "div", "svg", "ul", "li", "img"}
    known |= {"wbr", "table", "thead", "tbody", "tr", "th", "td", "span", "pre", "code"}
    assert {tag for tag, _ in read.elements} <= known


@given(NAMES)
def test_markdown_keeps_a_name_within_its_cell(name: str) -> None:
    lines = markdown(page(table(name))).splitlines()
    [row] = [line for line in lines if line.endswith(" 1 |")]
    # A bar ends a cell unless an odd number of backslashes stands before it.
    assert len(row.replace("\\\\", "").replace("\\|", "").split("|")) == 4


def test_text_is_escaped_before_its_markup_is_made() -> None:
    read = PageReader(html(page(Prose(f"`a<b>` is **not** {HOSTILE}"))))
    assert read.all("code")
    assert read.all("strong")
    assert not read.all("script", "b")
    assert f"a<b> is not {HOSTILE}" in read.text


def test_markdown_has_text_and_tables_but_no_pictures() -> None:
    figure = Figure("Caption of a figure", "What it shows", source=SOURCE)
    text = markdown(page(Prose("Some words."), figure, table("a|b", "c_d"), Commands(["$ make"])))
    assert text == (
        "# A title\n\nA lead\n\n## One section\n\nSome words.\n\n"
        "Caption\n\n| name | score |\n| ---- | ----: |\n| a\\|b |     1 |\n| c\\_d |     1 |\n\n"
        "```console\n$ make\n```\n"
    )


def test_markdown_leaves_out_sections_with_only_figures() -> None:
    assert "section" not in markdown(page(Figure("Caption", "What it shows", source=SOURCE)))


def test_tables_and_pictures_work_with_screen_readers_and_keyboards() -> None:
    grid = PictureGrid("Caption", [Cell("image")], [("tile", [Picture(SOURCE, "tile: image")])])
    chart = Figure("Caption", "What it shows", Markup("<svg></svg>"))
    read = PageReader(html(page(table("a"), grid, chart)))
    assert all(element.get("scope") in ("col", "row") for element in read.all("th"))
    assert read.all("img") == [{"src": SOURCE, "alt": "tile: image", "loading": "lazy"}]
    [shown] = [element for element in read.all("div") if element.get("role") == "img"]
    assert shown["aria-label"] == "What it shows"
    # Wide tables scroll in boxes that a keyboard reaches.
    boxes = [element for element in read.all("div") if element.get("class") == "scroll"]
    assert len(boxes) == 2
    assert all(element["tabindex"] == "0" and element["aria-label"] for element in boxes)


def test_a_page_forbids_the_browser_any_request() -> None:
    read = PageReader(html(page(Prose("Words"))))
    [policy] = [element["content"] for element in read.all("meta") if "http-equiv" in element]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert read.references == set()


def test_a_picture_is_shrunk_to_the_given_width_and_never_enlarged() -> None:
    image = np.full((40, 80, 3), (200, 30, 60), np.uint8)

    def decoded(side: int | None) -> np.ndarray:
        kind, _, text = data_uri(image, side).partition(",")
        assert kind == "data:image/jpeg;base64"
        return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)

    assert decoded(20).shape == (10, 20, 3)
    assert decoded(500).shape == decoded(None).shape == (40, 80, 3)
    np.testing.assert_allclose(decoded(None)[..., ::-1][20, 40], image[0, 0], atol=3)


def test_an_interval_is_shown_if_there_is_one() -> None:
    assert str(with_interval(0.5, 0.4, 0.61)) == "0.500 [0.400, 0.610]"
    assert str(with_interval(0.5, float("nan"), float("nan"))) == "0.500"
