"""The stages before and after the runs of a study: recipe and gather."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from graph import ROOT
from project import PARAMS
from study_records import write_run
from tiny_dataset import write_dataset

from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.core.run_states import mark_finished
from roofseg.recipe.digest import recipe_of
from roofseg.recipe.parsing import read_params
from roofseg.recipe.split import read_nudges, read_split
from roofseg.results.seed_spread import SeedSpread, read_seed_spread
from roofseg.studies.declaration import STUDY_NAMES
from roofseg.studies.in_force import stage_lists, write_lists
from stages import gather_study, study_recipe
from stages._studies import declared_studies

SMALL = ("small", "--prior", "weights/scratch.safetensors")
STUDIES = (ROOT / "tests" / "studies_tiny.yaml").read_text()


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """studies.yaml of a project with two training tiles, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    write_dataset(Path("data/tiny"), {"a": "train", "b": "train", "c": "val", "d": "test"}, size=8)
    Path("studies").mkdir()
    Path("studies/studies.yaml").write_text(STUDIES)
    write_lists(Path("studies/in_force.yaml"), stage_lists(*declared_studies(), STUDY_NAMES, False))
    Path("weights").mkdir()
    Path("weights/scratch.safetensors").write_bytes(b"nothing")
    write_json(Path("weights/scratch.json"), {"name": "scratch", "encoder": None})
    return Path("studies/studies.yaml")


def test_lists_that_are_older_than_the_studies_are_an_error(
    studies: Path, call_main: object
) -> None:
    studies.write_text(STUDIES.replace("      - 2\n    seeds", "    seeds"))
    with pytest.raises(
        UserError, match=r"^studies/in_force\.yaml: not what .* declare now\. `roofseg studies "
    ):
        call_main(study_recipe, *SMALL)
    assert not Path("studies/recipes").exists()


def test_more_tiles_than_the_split_has_are_an_error(studies: Path, call_main: object) -> None:
    studies.write_text(STUDIES.replace("      - 2\n    seeds", "      - 3\n    seeds"))
    with pytest.raises(
        UserError, match=r"budget\.tiles: found 3; expected at most 2, .*in split\.csv$"
    ):
        call_main(study_recipe, *SMALL)
    assert not Path("studies/recipes").exists()


def test_a_missing_studies_file_is_an_error(studies: Path, call_main: object) -> None:
    studies.unlink()
    with pytest.raises(UserError, match=r"studies\.yaml: cannot be read .*studies/profiles/"):
        call_main(study_recipe, *SMALL)


def test_a_prior_of_another_encoder_is_an_error(studies: Path, call_main: object) -> None:
    write_json(Path("weights/scratch.json"), {"encoder": "resnet18"})
    with pytest.raises(UserError, match=r"holds weights of encoder resnet18, with encoder tu-mob"):
        call_main(study_recipe, *SMALL)
    assert not Path("studies/recipes/small").exists()


def test_a_recipe_changes_only_with_its_own_keys(studies: Path, call_main: object) -> None:
    made = Path("studies/recipes/small")

    def recipes() -> dict[str, bytes]:
        call_main(study_recipe, *SMALL)
        return {path.name: path.read_bytes() for path in made.iterdir()}

    before = recipes()
    assert set(before) == {"studies.json", *(f"{name}.json" for name in STUDY_NAMES)}
    assert json.loads(before["budget.json"])["recipe"]["epochs"] == 1
    Path("params.yaml").write_text(PARAMS.replace("lr: 0.0003", "lr: 0.0004"))  # smaller's lr
    assert recipes() == before
    studies.write_text(STUDIES.replace("epochs: 1\n  seeds", "epochs: 2\n  seeds"))
    assert {name for name, text in recipes().items() if text != before[name]} == {"budget.json"}


@pytest.mark.whole
def test_a_study_is_gathered_from_the_runs_that_it_has_now(
    studies: Path, call_main: object, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Path("metrics/studies/runs/seeds")
    counts = [(60, 20, 20), (80, 10, 10)]
    for seed in (1, 2, 9):  # seed 9 is from an earlier studies.yaml
        write_run(runs / f"small-{seed}.json", attempt="small", seed=seed, counts=counts)
    state = Path(".state/seeds-small@0")
    state.mkdir(parents=True)
    mark_finished(state, "")
    call_main(gather_study, "seeds")
    assert not state.exists()
    table = pd.read_csv("metrics/studies/seeds/runs.csv")
    assert list(table.attempt) == ["small", "small"]
    assert list(table.seed) == [1, 2]
    assert table.val_iou.tolist() == pytest.approx([0.7, 0.7])
    assert capsys.readouterr().out.startswith("# Study: seeds")
    made = ["summary.csv", "runs.csv", "pairs.csv", "report.md"]
    assert sorted(path.name for path in Path("metrics/studies/seeds").iterdir()) == sorted(made)
    outputs = [Path("metrics/studies/seeds", name) for name in made]
    written = {path: path.read_bytes() for path in [*outputs, Path("plots/studies/seeds.png")]}
    call_main(gather_study, "seeds")
    assert {path: path.read_bytes() for path in written} == written

    assert not read_spread()  # the recipes of these runs have other epochs than the study

    with pytest.raises(SystemExit):
        call_main(gather_study, "seed")
    assert "invalid choice: 'seed'" in capsys.readouterr().err
    (runs / "small-2.json").unlink()
    with pytest.raises(UserError, match=r"small-2\.json: .*dvc\.yaml:seeds@small-2`"):
        call_main(gather_study, "seeds")


def read_spread(**changes: object) -> dict[str, SeedSpread]:
    """The rows of metrics/seed_spread.csv that belong to the recipes in force, with changes."""
    params = read_params(Path("params.yaml"))
    data = Path("data/tiny")
    recipe = recipe_of(params.recipe("small"), params, read_split(data), read_nudges(data))
    recipes = dict.fromkeys(["small", "cold"], recipe | changes)
    return read_seed_spread(Path("metrics/seed_spread.csv"), recipes)


@pytest.mark.whole
def test_the_spread_over_seeds_is_written_for_the_leaderboard(
    studies: Path, call_main: object
) -> None:
    # `cold` is an attempt of studies.yaml, which the leaderboard does not have.
    studies.write_text(
        STUDIES.replace("  seeds:\n    attempts:\n", "  seeds:\n    attempts:\n      - cold\n")
    )
    runs = Path("metrics/studies/runs/seeds")
    for name, more in {"small": {}, "cold": {"freeze_epochs": "all"}}.items():
        for seed, tp in ((1, 60), (2, 80)):
            path, counts = runs / f"{name}-{seed}.json", [(tp, 100 - tp, 0)]
            write_run(path, attempt=name, seed=seed, counts=counts, epochs=1, **more)
    call_main(gather_study, "seeds")
    assert read_spread(seed=7, epochs=9) == {"small": SeedSpread(2, 0.7, 0.141421, "epochs 1")}
    assert not read_spread(lr=0.5)
    text = Path("metrics/seed_spread.csv").read_text()
    assert [line.split(",")[:4] for line in text.splitlines()[1:]] == [["tiny", "64", "small", "2"]]
    # A run with an earlier recipe does not count, and one run has no spread.
    write_run(runs / "small-2.json", attempt="small", seed=2, counts=counts, epochs=1, lr=0.5)
    call_main(gather_study, "seeds")
    assert not read_spread()
