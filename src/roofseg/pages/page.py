"""Describe a page of results, and render it as one HTML file or as Markdown.

The HTML file is self-contained: it includes style and pictures and has no script. The
Content-Security-Policy in its head makes the browser refuse any request to a server. Markdown has
the same text and tables without the pictures.

In the texts of a page `` `x` `` is code and ``**x**`` is strong, in both forms. Everything else is
escaped in HTML, so the name of a tile or an attempt cannot become markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import cv2
import jinja2
import numpy as np
from markupsafe import Markup, escape

from roofseg.core.images import Image
from roofseg.results.tables import bounds, markdown_table, number

TEMPLATES = Path(__file__).parent / "templates"
JPEG_QUALITY = 82  # the lines of a comparison stay crisp; a quarter of the bytes of PNG


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Cell:
    """A number or a word, with a detail in smaller type, such as its interval.

    ``code`` shows the text as code.
    """

    text: str
    detail: str = ""
    code: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".rstrip()


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first cell of a row is its name.

    ``words`` are the headings of the columns to align to the left; the others, which hold numbers,
    are aligned to the right.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the number of a series, which decides its colour, and its name."""

    series: int
    name: str


@dataclass(frozen=True)
class Figure:
    """A chart (``svg``, markup) or a picture (``source``, a data URI); ``alt`` describes it."""

    kind: ClassVar[str] = "figure"
    caption: str
    alt: str
    svg: Markup | None = None
    source: str = ""
    legend: Sequence[Key] = ()


@dataclass(frozen=True)
class Picture:
    """A picture of a `PictureGrid`: a data URI, a text that describes it, and a caption below."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class PictureGrid:
    """Pictures in rows and columns: a heading for each column, a name for each row."""

    kind: ClassVar[str] = "grid"
    caption: str
    columns: Sequence[Cell]
    rows: Sequence[tuple[str, Sequence[Picture]]]


@dataclass(frozen=True)
class Commands:
    """Lines to type in a shell."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[str]


Block = Prose | Table | Figure | PictureGrid | Commands


@dataclass(frozen=True)
class Section:
    """Blocks of a page under a heading."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The id of the section in HTML, made from its title."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A page; its ``caveats`` (texts by name) come at the top, before any number."""

    title: str
    lead: str
    sections: Sequence[Section]
    caveats: Mapping[str, str] = field(default_factory=dict)


def html(page: Page) -> str:
    """Render a page as one self-contained HTML file."""
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return _templates().get_template("page.html.j2").render(page=page, style=style)


def markdown(page: Page) -> str:
    """Render a page as Markdown for GitHub, without its figures and grids."""
    text = _templates().get_template("page.md.j2").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def data_uri(picture: Image, side: int | None = None) -> str:
    """Encode a picture as a ``data:`` URI of JPEG.

    Args:
        picture: (H, W, 3) uint8 RGB.
        side: the width in pixels to shrink a wider picture to; None keeps its size.
    """
    pixels = picture
    if side is not None and pixels.shape[1] > side:
        size = (side, max(1, round(side * pixels.shape[0] / pixels.shape[1])))
        # INTER_AREA keeps thin outlines.
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), options)
    if not done:
        raise ValueError(f"cannot encode an array of shape {pixels.shape} as JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "prose": _prose,
        "markdown_text": _markdown_text,
        "markdown_table": _markdown_table,
    }
    return templates


def _prose(text: str) -> Markup:
    """Turn a text of a page into HTML."""
    safe = str(escape(text))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe))


# Characters that are markup in Markdown, except the bar, which markdown_table escapes.
_SPECIAL = re.compile(r"([\\`*_<>\[\]&~#])")


def _markdown_text(text: str) -> str:
    """Escape a text so that Markdown shows it as it is, on one line."""
    return " ".join(_SPECIAL.sub(r"\\\1", text).split())


def _markdown_cell(cell: Cell | str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    code = cell.code and "`" not in cell.text
    return f"{f'`{cell.text}`' if code else _markdown_text(cell.text)} {cell.detail}".rstrip()


def _markdown_table(table: Table) -> str:
    rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    header = [_markdown_text(heading) for heading in table.header]
    left = {_markdown_text(word) for word in table.words}
    return "\n".join(markdown_table(header, rows, left))


def join_words(words: Sequence[str]) -> str:
    """Join one or more words as in ``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def with_interval(value: float, low: float, high: float) -> Cell:
    """Format a score, with its interval in brackets unless ``low`` is NaN."""
    return Cell(number(value), bounds(low, high))
