"""`make docs` builds a site that is complete, and that needs no network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from graph import ROOT
from project import environment

pytestmark = pytest.mark.whole

# Attributes that a browser fetches by itself, unlike those of a link (`a`).
FETCHED = {"script": "src", "img": "src", "link": "href", "source": "srcset", "iframe": "src"}
PACKAGES = [file.parent for file in (ROOT / "src" / "roofseg").rglob("*.py")]


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of `make docs`."""
    makefile = (ROOT / "Makefile").read_text()
    command = re.search(r"^\tPYTHONPATH=src python -m (sphinx .*) site$", makefile, re.MULTILINE)
    assert command
    return subprocess.run(
        [sys.executable, "-m", *command[1].split(), site],
        cwd=root,
        env={**environment(), "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
    )


class Page(HTMLParser):
    """The files that a page fetches, and the targets of its links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif tag in FETCHED:
            self.fetched.append(values.get(FETCHED[tag], ""))


def copy_checkout(folder: Path) -> Path:
    """Copy the tracked and new files of this checkout: a build writes among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_checkout(tmp_path_factory.mktemp("checkout"))
    done = build(folder, folder / "site")
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_no_page_fetches_from_a_server(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        remote = [each for each in page.fetched if re.match(r"(https?:)?//", each)]
        assert not remote, path
    for path in site.rglob("*.css"):
        assert not re.search(r"""(@import|url\()\s*["']?(https?:)?//""", path.read_text()), path


def test_links_between_pages_lead_somewhere(pages: dict[Path, Page]) -> None:
    """Sphinx checks the links of Markdown; this also checks those that it makes itself."""
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link) or not link:
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_file(), f"{path}: {link}"
            if anchor and target in pages:
                assert anchor in pages[target].ids, f"{path}: {link}"


def test_every_page_of_the_project_and_every_package_has_a_page(site: Path) -> None:
    docs = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for page in docs:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).is_file(), page
    for package in PACKAGES:
        name = ".".join(package.relative_to(ROOT / "src").parts)
        assert (site / "docs" / "api" / f"{name}.html").is_file(), name
    text = (site / "docs" / "api" / "roofseg.models.html").read_text()
    assert 'id="roofseg.models.roof_model.RoofModel.encode"' in text
    assert "_split" not in text


BROKEN = ("docs/no-such-page.md", "docs/code.md#no-such-heading", "no-such-file.yaml")


def test_broken_links_fail_the_build(tmp_path: Path) -> None:
    """A link to a missing page, heading or file is a warning, and a warning is an error."""
    copy_checkout(tmp_path)
    for module in (tmp_path / "src").rglob("*.py"):
        module.unlink()  # without the API the build takes seconds
    (tmp_path / "src" / "roofseg" / "version.py").touch()
    with (tmp_path / "README.md").open("a") as readme:
        readme.writelines(f"\n[broken]({link})\n" for link in BROKEN)
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    warnings = [line for line in done.stderr.splitlines() if "README.md" in line]
    for link, warning in zip(BROKEN, warnings, strict=True):
        assert link.removesuffix(".md").rpartition("#")[2] in warning
