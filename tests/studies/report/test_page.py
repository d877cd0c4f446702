from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from graph import ROOT
from page_reader import PageReader
from ruamel.yaml import YAML
from studies.report.test_results import made
from tuning.test_section import TABLE

from roofseg.core.errors import UserError
from roofseg.pages.page import TEMPLATES, Section
from roofseg.studies.report.results import studies_html
from roofseg.studies.report.sections import unfinished_section
from stages import study_report


def read(*sections: Section) -> PageReader:
    return PageReader(studies_html("sample", 64, sections))


@pytest.mark.parametrize("name", ["budget", "seeds", "augmentation"])
def test_a_study_shows_its_figure_after_its_first_block(name: str) -> None:
    section = made(name).section
    assert [block.kind for block in section.blocks[:3]] == ["prose", "figure", "table"]
    page = read(section)
    [image] = page.all("img")
    assert image["src"].startswith("data:image/jpeg;base64,")  # type: ignore[union-attr]
    assert image["alt"] == f"{section.title}: the numbers are in the tables of this section."
    assert not page.all("script", "link")
    caption = section.blocks[1].caption  # type: ignore[union-attr]
    assert "Synthetic. The sample tiles are generated" in page.text[: page.text.index(caption)]


def test_an_unfinished_study_is_named_with_its_command() -> None:
    text = read(unfinished_section("seeds", 3, 12)).text
    assert "Not finished: 3 of 12 runs are done." in text
    assert "roofseg studies seeds" in text


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "studies/studies.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.whole
def test_the_page_shows_the_studies_and_tuning_runs_that_exist(project: Path) -> None:
    study_report.main()
    page = PageReader((project / "studies/report.html").read_text())
    assert page.text.count("Not finished: 0 of") == 4
    assert "Tuning" not in page.text
    attempts = YAML(typ="safe").load(project / "params.yaml")["attempts"]
    known = TABLE.replace({"attempt": {"unet": "unet_imagenet", "sam": "sam_unet"}})
    assert set(known.attempt) <= set(attempts)
    (project / "metrics/studies").mkdir(parents=True)
    known["dataset"] = "city"  # tuned under another profile
    known.to_csv(project / "metrics/studies/tuning.csv", index=False)
    study_report.main()
    assert "Tuning" not in PageReader((project / "studies/report.html").read_text()).text
    known["dataset"] = "sample"
    removed = known.assign(attempt="removed")  # not in params.yaml any more
    pd.concat([known, removed]).to_csv(project / "metrics/studies/tuning.csv", index=False)
    study_report.main()
    page = PageReader((project / "studies/report.html").read_text())
    assert "Tuning" in page.text
    assert {row[0] for row in page.rows[1:] if row[0].startswith("sam")} == {
        "sam_unet (no SAM weights)"
    }
    alts = [each["alt"] or "" for each in page.all("img")]
    shown = [alt.split(";")[0] for alt in alts[:2]]
    assert shown == ["Val IoU against lr", "Val IoU against augmentation"]
    assert len(alts) == 3


def test_tuning_runs_of_an_earlier_version_are_an_error(project: Path) -> None:
    (project / "metrics/studies").mkdir(parents=True)
    old = TABLE.drop(columns=["p_value", "verdict"]).assign(tie="yes", dataset="sample")
    old.to_csv(project / "metrics/studies/tuning.csv", index=False)
    with pytest.raises(UserError, match=r"p_value, verdict, .* `roofseg tuning-report`"):
        study_report.main()


def test_the_stage_depends_on_parameters_results_and_templates() -> None:
    """It depends on all of params.yaml, since runs with other parameters are left out."""
    stages = YAML(typ="safe").load(ROOT / "studies/dvc.yaml")["stages"]
    templates = {TEMPLATES.parent.relative_to(ROOT).as_posix()}
    needed = templates | {"metrics/studies", "params.yaml", "studies/studies.yaml"}
    assert needed <= set(stages["page"]["do"]["deps"])


def test_no_stage_of_the_pipeline_depends_on_a_study() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for name, stage in stages.items():
        deps = stage.get("do", stage)["deps"]
        assert not [dep for dep in deps if "studies" in dep], name
