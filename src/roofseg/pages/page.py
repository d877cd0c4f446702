"""Pages of results: text, tables and pictures, written as one HTML file or as Markdown.

An HTML page is whole by itself: style and pictures are in it, and it has no script. The policy in
its head (Content-Security-Policy) has the browser refuse whatever a page might ask a server for.
Markdown is the same page without pictures.

In the texts of a page `` `x` `` is code and ``**x**`` is strong, in both forms; all else is shown
as it is, so that no name of a tile or an attempt is taken for HTML.
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

from roofseg.core.images import Image, read_image

TEMPLATES = Path(__file__).parent / "templates"
JPEG_QUALITY = 82  # the lines of a comparison stay crisp; a quarter of the bytes of PNG


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Cell:
    """A number or a word, and what belongs to it in smaller letters, such as its interval."""

    text: str
    detail: str = ""
    code: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".rstrip()


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first cell of a row names it.

    ``words`` are the headings of columns that hold words: these are set flush left.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the series it stands for (its number), and its name."""

    series: int
    name: str


@dataclass(frozen=True)
class Figure:
    """A chart (SVG markup) or a picture (a data URI). ``alt`` says what it shows, in words."""

    kind: ClassVar[str] = "figure"
    caption: str
    alt: str
    svg: Markup | None = None
    source: str = ""
    legend: Sequence[Key] = ()


@dataclass(frozen=True)
class Picture:
    """One picture of a `Grid`: a data URI, what it shows, and a line below it."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Grid:
    """Pictures in rows and columns: a heading for each column, a name for each row."""

    kind: ClassVar[str] = "grid"
    caption: str
    columns: Sequence[Cell]
    rows: Sequence[tuple[str, Sequence[Picture]]]


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[str]


Block = Prose | Table | Figure | Grid | Commands


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A page; ``caveats`` (name to text) stand at its top, before any number."""

    title: str
    lead: str
    sections: Sequence[Section]
    caveats: Mapping[str, str] = field(default_factory=dict)


def html(page: Page) -> str:
    """The page as one HTML file that needs nothing else."""
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return _templates().get_template("page.html.j2").render(page=page, style=style)


def markdown(page: Page) -> str:
    """The page as Markdown for GitHub, without its figures and grids."""
    text = _templates().get_template("page.md.j2").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def data_uri(picture: Image | Path, side: int | None = None) -> str:
    """A picture as a ``data:`` URI of JPEG; shrunk, if it is wider than ``side`` pixels.

    Args:
        picture: (H, W, 3) uint8 RGB, or the file of one.
    """
    pixels = read_image(picture) if isinstance(picture, Path) else picture
    if side is not None and pixels.shape[1] > side:
        size = (side, max(1, round(side * pixels.shape[0] / pixels.shape[1])))
        # By area, which keeps thin outlines.
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
    templates.filters |= {"prose": _prose, "markdown_cell": _markdown_cell}
    return templates


def _prose(text: str) -> Markup:
    """Text of a page as HTML."""
    safe = str(escape(text))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe))


# What Markdown would take for markup, but for the bar, which ends a cell in code too.
_SPECIAL = re.compile(r"([\\`*_<>\[\]&~#])")


def _markdown_cell(cell: Cell | str) -> str:
    """A cell as Markdown shows it; a name keeps its letters, and code keeps them in backticks."""
    text, detail, code = (
        (cell.text, cell.detail, cell.code) if isinstance(cell, Cell) else (cell, "", False)
    )
    shown = f"`{text}`" if code and "`" not in text else _SPECIAL.sub(r"\\\1", text)
    return " ".join(f"{shown} {detail}".replace("|", "\\|").split())


def join_words(words: Sequence[str]) -> str:
    """Join words to ``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals and a true minus; a dash where there is none."""
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def with_interval(value: float, low: float, high: float, digits: int = 3) -> Cell:
    """A score with its interval in brackets, if it has one."""
    if low is None or low != low:
        return Cell(number(value, digits))
    return Cell(number(value, digits), f"[{number(low, digits)}, {number(high, digits)}]")
