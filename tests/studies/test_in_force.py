from __future__ import annotations

from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from roofseg.studies.in_force import NONE, read_lists, write_lists


def test_lists_are_written_in_one_line_and_others_as_before(tmp_path: Path) -> None:
    """ruamel.yaml keeps representers in a class, which DVC uses to edit params.yaml."""
    lists = {**NONE, "gathered": ["seeds", "budget"]}
    write_lists(tmp_path / "in_force.yaml", lists)
    assert "gathered: [seeds, budget]\n" in (tmp_path / "in_force.yaml").read_text()
    assert read_lists(tmp_path / "in_force.yaml") == lists
    text = StringIO()
    YAML().dump({"known": ["a", "b"]}, text)
    assert text.getvalue() == "known:\n- a\n- b\n"
