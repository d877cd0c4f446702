"""Reading the records of a study's runs, and which of them count as finished."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies.test_declaration import STUDIES, TINY
from study_records import write_run

from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.studies.declaration import parse_studies, with_attempts
from roofseg.studies.report.records import finished_runs, read_record, read_records, record_file


def test_a_record_is_read_from_its_counts(tmp_path: Path) -> None:
    path = record_file(tmp_path, "budget", "a-5-3")
    write_run(path, attempt="a", seed=3, counts=[(50, 50, 0), (0, 0, 0)], tiles=5)
    run = read_record(tmp_path, "budget", "a-5-3")
    assert list(run.iou) == [0.5, 1.0]
    assert list(run.f1) == pytest.approx([2 / 3, 1.0])
    assert set(run.tiles) == {5}
    assert set(run.seed) == {3}
    assert set(run.failure) == {""}


def test_a_missing_record_is_named_with_the_stage_that_makes_it(tmp_path: Path) -> None:
    study = parse_studies(STUDIES, TINY).study("seeds")
    path = record_file(tmp_path, "seeds", "small-1")
    write_run(path, attempt="small", seed=1, counts=[(1, 1, 1)])
    with pytest.raises(
        UserError, match=r"seeds/small-2\.json: no such file\. .*dvc\.yaml:seeds@small-2`"
    ):
        read_records(tmp_path, "seeds", study)


def test_runs_with_other_data_or_another_recipe_do_not_count(tmp_path: Path) -> None:
    studies = parse_studies(STUDIES, TINY)
    params = with_attempts(TINY, studies.attempts, source="here")
    study = studies.study("budget")
    assert finished_runs(tmp_path, "budget", study, params) == []
    name, values = next(iter(study.runs().items()))
    recipe = study.recipe(params, values).model_dump(mode="json")
    record = {"dataset": "tiny", "patch_size": 64, "recipe": recipe}
    for change, finished in (
        ({}, [name]),
        ({"patch_size": 512}, []),
        ({"dataset": "city"}, []),
        (
            {"recipe": {**recipe, "epochs": recipe["epochs"] + 1}},
            [],
        ),  # earlier parameters
    ):
        write_json(record_file(tmp_path, "budget", name), {**record, **change})
        assert finished_runs(tmp_path, "budget", study, params) == finished
