"""The site of `make docs`: the project's Markdown pages, and the API reference.

Sphinx with MyST reads the repository's own pages from its root: README.md is the home page, and
every link works as it does in the repository and is checked, with its anchor. (Zensical 0.0.73
reads one folder: links to files outside it are missing pages or lead nowhere. Its offline pages ask
a server for a script.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import find_lexer_class_for_filename
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "docs" / "api"  # generated, not in git
ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[[^]]*\], ~?numpy\.dtype\[([^]]+)\]\]")
LINKED: dict[str, Path] = {}  # files of the repository that pages link to, by their page

project = "roofseg"
author = project_copyright = "The roofseg contributors"
html_title = project
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "report.md", "metrics/leaderboard.md"),
    *("docs/**.md", "docs/**.rst", "benchmarks/*.md"),
]
exclude_patterns = [".*", "data", "models", "patches", "predictions", "site", "src"]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["alert", "html_image"]
myst_heading_anchors = 4  # GitHub's anchors, for headings down to this level

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 120
napoleon_custom_sections = ["Shape", ("Attributes", "params_style")]
autodoc_inherit_docstrings = False
default_role = "py:obj"  # `name` in a docstring is a link where the API has that name

# The guide has the pages of docs/index.md, in its order; a page that is missing there is a warning.
GUIDE = re.findall(r"\]\(([\w-]+)\.md\)", (ROOT / "docs" / "index.md").read_text("utf-8"))
NAVIGATION = {
    "Guide": ["docs/index", *(f"docs/{name}" for name in dict.fromkeys(GUIDE))],
    "Results": ["metrics/leaderboard", "report", "benchmarks/*"],
    "Development": ["CONTRIBUTING", "docs/api/index", "CHANGELOG"],
}


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_api_pages)
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-signature", shorten_arrays)
    app.connect("autodoc-process-docstring", adapt_docstring)
    app.connect("doctree-read", link_to_files, priority=400)  # before Sphinx copies the files
    app.connect("html-collect-pages", file_pages)
    app.connect("build-finished", write_index)


def write_api_pages(_: Sphinx) -> None:
    """Write a page for each package in src/roofseg, with a section for each of its modules."""
    packages: dict[str, list[str]] = {}
    for file in sorted((ROOT / "src" / "roofseg").rglob("*.py")):
        *package, module = file.relative_to(ROOT / "src").with_suffix("").parts
        if not module.startswith("__"):
            packages.setdefault(".".join(package), []).append(module)
    API.mkdir(exist_ok=True)
    for page in API.glob("*.rst"):
        page.unlink()
    for package, modules in packages.items():
        sections = "".join(
            f"\n{heading(module, '-')}\n.. automodule:: {package}.{module}\n" for module in modules
        )
        (API / f"{package}.rst").write_text(heading(package, "=") + sections)
    listed = "".join(f"   {package}\n" for package in packages)
    toctree = f"\n.. toctree::\n   :maxdepth: 2\n\n{listed}"
    (API / "index.rst").write_text(heading("API reference", "=") + toctree)


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def add_navigation(_: Sphinx, docname: str, source: list[str]) -> None:
    """Append the tree of pages to the home page, where Sphinx expects it."""
    if docname == root_doc:
        for caption, pages in NAVIGATION.items():
            source[0] += "\n".join(
                ["\n\n```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", *pages, "```\n"]
            )


def shorten_arrays(*args: Any) -> tuple[str, str] | None:
    """Write the type of an array as the code does: NDArray[float32]."""
    *_, arguments, returned = args
    if arguments is None:
        return None
    return ARRAY.sub(r"NDArray[\1]", arguments), ARRAY.sub(r"NDArray[\1]", returned or "")


def adapt_docstring(_: Sphinx, __: str, ___: str, documented: Any, *rest: Any) -> None:
    """Show the text of a command as `--help` does; make a list of the entries of ``Sources:``."""
    *_, lines = rest
    if hasattr(documented, "add_arguments"):
        lines[:] = [".. code-block:: text", "", *(f"   {line}" for line in lines)]
    elif "Sources:" in lines:
        start = lines.index("Sources:") + 1
        entries = [re.sub(r"^ {4}(?=\S)", "- ", line).replace(" " * 8, "  ") for line in lines]
        # The initial of an author would begin another list.
        entries = [re.sub(r"^(- [A-Z])\. ", r"\1\\. ", line) for line in entries]
        lines[start:] = ["", *entries[start:]]


def link_to_files(app: Sphinx, doctree: nodes.document) -> None:
    """Lead links to files of the repository to pages that show them; show folders as code."""
    folder = ROOT.joinpath(app.env.docname).parent
    for node in [*doctree.findall(addnodes.download_reference)]:
        path = folder.joinpath(node["reftarget"]).resolve()
        page = f"files/{path.relative_to(ROOT).as_posix()}"
        LINKED[page] = path
        uri = app.builder.get_relative_uri(app.env.docname, page)
        node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))
    for node in [*doctree.findall(addnodes.pending_xref)]:
        if node["reftype"] == "myst" and folder.joinpath(node["reftarget"]).is_dir():
            node.replace_self(nodes.literal("", node.astext()))


def file_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The page of each file that `link_to_files` found."""
    for page, path in LINKED.items():
        lexer = find_lexer_class_for_filename(path.name)
        language = lexer.aliases[0] if lexer else "text"
        text = app.builder.highlighter.highlight_block(path.read_text("utf-8"), language)
        title = page.removeprefix("files/")
        yield page, {"title": title, "body": f"<h1>{title}</h1>{text}"}, "page.html"


def write_index(app: Sphinx, error: Exception | None) -> None:
    """Make the folder itself open the home page."""
    if not error:
        (app.outdir / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><title>{project}</title>'
            f'<meta http-equiv="refresh" content="0; url={root_doc}.html">'
            f'<a href="{root_doc}.html">{project}</a>\n'
        )
