"""Read a page as a browser would, with Python's HTML parser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "link", "br", "input", "wbr"}


class PageReader(HTMLParser):
    """The elements of a page with their attributes, its text, table rows and references."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            raise AssertionError(f"</{tag}> closes what it did not open, line {self.getpos()[0]}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of these tags."""
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def references(self) -> set[str]:
        """All addresses that the page makes a browser fetch or offers as links."""
        named = {
            value or ""
            for _, attributes in self.elements
            for key, value in attributes.items()
            if key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
        }
        styles = [value or "" for _, each in self.elements for key, value in each.items()]
        in_css = re.findall(r"url\(([^)]*)\)|@import ([^;]*)", "".join([*styles, *self.words]))
        return named | {one or other for one, other in in_css}
