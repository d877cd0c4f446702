from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from graph import ROOT
from page_reader import PageReader
from ruamel.yaml import YAML

from roofseg.core.files import write_json
from roofseg.pages.page import TEMPLATES, Prose, Section, Table
from roofseg.studies.report.page import CAPTIONS, missing, study_page, with_figure
from roofseg.tuning.table import HEAD, SCORES
from stages import gather_study, study_report
from stages.studies import read_studies

PICTURE = np.full((20, 40, 3), 200, np.uint8)
RUNS = [
    ("unet", 1, "a", "done", 0.001, "light", 0.71, 0.82, -0.02, -0.05, 0.01, "yes"),
    ("unet", 2, "b", "done", 0.003, "heavy", 0.73, 0.84, 0.0, 0.0, 0.0, "yes"),
    ("unet", 3, "c", "done", 0.1, "light", 0.59, 0.8, -0.14, -0.2, -0.1, "no"),
    ("sam", 1, "d", "not queued", 0.001, None, *[np.nan] * 5, None),
]
TUNING = pd.DataFrame(RUNS, columns=[*HEAD, "lr", "augmentation", *SCORES])


def read(*sections: Section) -> PageReader:
    return PageReader(study_page("city", 64, sections, {"Synthetic": "Generated."}))


def test_a_study_shows_its_figure_after_what_it_says_first() -> None:
    table = Table("Numbers", ["attempt"], [["unet"]])
    section = with_figure("budget", Section("Data budget", [Prose("Verdict."), table]), PICTURE)
    assert [block.kind for block in section.blocks] == ["prose", "figure", "table"]
    page = read(section)
    [image] = page.all("img")
    assert image["src"].startswith("data:image/jpeg;base64,")  # type: ignore[union-attr]
    assert image["alt"] == "Data budget: the numbers are in the tables of this section."
    assert CAPTIONS["budget"] in page.text
    assert not page.all("script", "link")
    assert "Synthetic. Generated." in page.text[: page.text.index("Verdict.")]


def test_a_study_that_was_not_run_is_named_with_its_command() -> None:
    text = read(missing("seeds", "Seeds", 3, 12)).text
    assert "Not run to its end: 3 of 12 runs are there." in text
    assert "dvc repro studies/dvc.yaml:gather_seeds" in text


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "studies/studies.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_tells_of_what_there_is(project: Path) -> None:
    study_report.main()
    page = PageReader((project / "studies/report.html").read_text())
    assert page.text.count("Not run to its end: 0 of") == 3
    assert "Tuning" not in page.text
    attempts = YAML(typ="safe").load(project / "params.yaml")["attempts"]
    known = TUNING.replace({"attempt": {"unet": "unet_imagenet", "sam": "sam_unet"}})
    assert set(known.attempt) <= set(attempts)
    (project / "metrics/studies").mkdir(parents=True)
    known["dataset"] = "city"  # tuned under another profile
    known.to_csv(project / "metrics/studies/tuning.csv", index=False)
    study_report.main()
    assert "Tuning" not in PageReader((project / "studies/report.html").read_text()).text
    known["dataset"] = "sample"
    removed = known.assign(attempt="removed")  # and is no more in params.yaml
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


def test_runs_of_other_data_or_another_recipe_are_not_those_of_this_one(project: Path) -> None:
    studies, params = read_studies()
    assert gather_study.there("budget", studies, params) == []
    name, place = next(iter(studies.study("budget").runs().items()))
    recipe = studies.study("budget").recipe(params, place, "here").model_dump(mode="json")
    record = {"dataset": "sample", "patch_size": 224, "recipe": recipe}
    for other, found in (
        ({}, [name]),
        ({"patch_size": 512}, []),
        ({"dataset": "city"}, []),
        ({"recipe": {**recipe, "epochs": recipe["epochs"] + 1}}, []),  # by an earlier studies.yaml
    ):
        write_json(gather_study.record_of("budget", name), {**record, **other})
        assert gather_study.there("budget", studies, params) == found


def test_the_stage_depends_on_parameters_what_studies_left_and_templates() -> None:
    """All parameters: a run of another learning rate is not in force."""
    stages = YAML(typ="safe").load(ROOT / "studies/dvc.yaml")["stages"]
    templates = {path.relative_to(ROOT).as_posix() for path in TEMPLATES.iterdir()}
    needed = templates | {"metrics/studies", "params.yaml", "studies/studies.yaml"}
    assert needed <= set(stages["report"]["deps"])


def test_no_stage_of_the_pipeline_depends_on_a_study() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for name, stage in stages.items():
        deps = stage.get("do", stage)["deps"]
        assert not [dep for dep in deps if "studies" in dep], name
