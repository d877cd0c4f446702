"""README.md and docs: links work, pictures are small and described, scores are current."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from graph import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("benchmarks/*.md"))]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def of_page(path: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)", of_page(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(path: Path) -> list[str]:
    links = [link for _, _, link in LINK.findall(of_page(path)) if "://" not in link]
    found: list[str] = []
    for link in links:
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One two?\n[a](#one-two) [b](#three) ![c](none.png) [d](https://example.org)")
    assert broken(page) == ["#three", "none.png"]


def test_every_page_is_in_the_index() -> None:
    listed = {link for _, _, link in LINK.findall((ROOT / "docs" / "index.md").read_text())}
    assert {page.name for page in ROOT.glob("docs/*.md")} - listed == {"index.md"}


def test_pictures_are_small_used_and_described() -> None:
    pictures = {path for path in ROOT.glob("docs/images/*") if path.suffix in {".png", ".svg"}}
    assert {path.name for path in pictures if path.stat().st_size > 300_000} == set()
    shown = [
        (text, (page.parent / link).resolve())
        for page in PAGES
        for picture, text, link in LINK.findall(page.read_text())
        if picture
    ]
    assert {path for _, path in shown} == pictures
    assert [path.name for text, path in shown if len(text) < 40] == []


def test_the_diagram_names_the_stages_of_the_pipeline() -> None:
    stages = re.findall(r"^  (\w+):$", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)
    diagram = (ROOT / "docs" / "images" / "pipeline.svg").read_text()
    assert len(stages) == 6
    assert [name for name in stages if f">{name}" not in diagram] == []


@pytest.mark.release
def test_readme_has_the_scores_of_the_leaderboard() -> None:
    board = pd.read_csv(ROOT / "metrics" / "leaderboard.csv").set_index("attempt")
    sample = (ROOT / "README.md").read_text().partition("**On the sample**")[2]
    rows = re.findall(r"^\| `(\w+)`.*? \| (\d\.\d+).*? \| (\d\.\d+)", sample, re.MULTILINE)
    assert dict((name, (val, test)) for name, val, test in rows) == {
        name: (f"{row.val_iou:.3f}", f"{row.test_iou:.3f}") for name, row in board.iterrows()
    }


@pytest.mark.release
@pytest.mark.parametrize("page", ["README.md", "docs/experiments.md"])
def test_the_experiment_starts_from_the_committed_scores(page: str) -> None:
    shown = re.findall(
        r"^metrics/(\w+)\.json  (\w+)\.(\w+) +(0\.\d+)", (ROOT / page).read_text(), re.M
    )
    assert len(shown) == 4
    for attempt, split, name, value in shown:
        scores = json.loads((ROOT / "metrics" / f"{attempt}.json").read_text())
        assert round(scores[split][name], 5) == float(value)


@pytest.mark.release
def test_no_page_is_unfinished() -> None:
    assert not [page for page in PAGES if "TODO" in page.read_text()]
