"""check_params finds the outputs that data/dvc.yaml declares, however the YAML is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from roofseg.core.errors import UserError
from stages.check_params import stage_outputs

PLAIN = """
stages:
  tiles:
    wdir: ..
    cmd: "true"
    outs:
      - data/a/imgs  # the imagery
      - "data/a/msks"
"""
WITH_OPTIONS = """
stages:
  tiles:
    cmd: "true"
    outs:
      - a/imgs:
          persist: true
      - 'a/msks': {cache: false, persist: true}
"""
FLOW = """
stages: {tiles: {outs: [./a/imgs, a/../a/msks], wdir: ., cmd: "true"}}
"""
FOREACH_LIST = """
stages:
  tiles:
    foreach: [a]
    do:
      wdir: ../data/${item}
      cmd: "true"
      outs:
        - imgs
        - ${ item }_masks/../msks:
            persist: true
"""
FOREACH_LIST_OF_MAPPINGS = """
stages:
  tiles:
    foreach:
      - {name: a}
    do:
      cmd: "true"
      outs:
        - ${item.name}/imgs
        - ${item.name}/msks
"""
FOREACH_MAPPING = """
stages:
  tiles:
    foreach:
      a: {kind: imgs}
      b: {kind: imgs}
    do:
      cmd: "true"
      outs:
        - ${key}/${item.kind}
        - ${key}/msks
"""
VARIABLE = """
vars: [{name: a}]
stages:
  tiles:
    cmd: "true"
    outs: ["${name}/imgs", "${name}/msks"]
"""
MATRIX = """
stages:
  tiles:
    matrix:
      place: [a]
      kind: [imgs, msks]
    cmd: "true"
    outs:
      - ${item.place}/${item.kind}
"""
SPELLINGS = {
    "plain": PLAIN,
    "with options": WITH_OPTIONS,
    "flow": FLOW,
    "foreach list": FOREACH_LIST,
    "foreach list of mappings": FOREACH_LIST_OF_MAPPINGS,
    "foreach mapping": FOREACH_MAPPING,
    "matrix": MATRIX,
    "variable": VARIABLE,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without git and without .dvc."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_outputs_are_found_in_every_spelling(project: Path, spelling: str) -> None:
    path = Path("data/dvc.yaml")
    path.write_text(SPELLINGS[spelling])
    assert {project / "data/a/imgs", project / "data/a/msks"} <= stage_outputs(path)


@pytest.mark.parametrize(
    "text",
    [
        "stages:\n  tiles:\n    cmd: echo data/a/imgs\n    deps: [a/imgs]\n",
        "# - a/imgs\nstages: {}\n",
        "stages:\n  tiles:\n    cmd: x\n    desc: |\n      - data/a/imgs\n    outs: []\n",
    ],
    ids=["dependency", "comment", "description"],
)
def test_other_text_is_not_an_output(project: Path, text: str) -> None:
    path = Path("data/dvc.yaml")
    path.write_text(text)
    assert stage_outputs(path) == set()


@pytest.mark.parametrize("text", ["stages: [\n", "stages: 3\n", "stages: {a: {outs: [b]}}\n"])
def test_a_file_that_dvc_cannot_read_is_named(project: Path, text: str) -> None:
    path = Path("data/dvc.yaml")
    path.write_text(text)
    with pytest.raises(UserError, match=r"^data/dvc\.yaml: DVC cannot read it \(.*\)\. Correct it"):
        stage_outputs(path)
