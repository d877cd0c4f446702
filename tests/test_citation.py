"""CITATION.cff and CHANGELOG.md name this version."""

from __future__ import annotations

import re
import tomllib

from graph import ROOT
from ruamel.yaml import YAML

from roofseg.version import VERSION


def test_the_citation_is_of_this_version() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == VERSION
    assert citation["license"] == project["license"]


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == VERSION
