from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from graph import ROOT
from project import PARAMS, SPLIT
from result_files import (
    ATTEMPTS,
    OPEN,
    add_attempt,
    add_results,
    build,
    headline,
    read,
    read_board,
    read_tiles,
    rescore,
    rows,
    set_missed,
)
from ruamel.yaml import YAML
from small_entries import FLOOR
from tiny_dataset import write_dataset

from roofseg.core.errors import UserError
from roofseg.pages.page import TEMPLATES
from roofseg.recipe.digest import recipe_of
from roofseg.recipe.parsing import read_params
from roofseg.recipe.split import read_nudges, read_split
from roofseg.report.details import measures
from roofseg.report.differences import against_leader
from roofseg.results.seed_spread import COLUMNS, SeedSpread, digest_without_seed
from roofseg.results.tables import write_csv
from stages import leaderboard as stage

LABELS = ["worse", "better", "sam (no SAM weights)"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The results of the attempts, without a leaderboard."""
    return add_results(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with their leaderboard, for reading only. One attempt is not in params.yaml."""
    folder = add_results(tmp_path_factory.mktemp("board"))
    add_attempt(folder, "leftover", 0)
    read(folder)
    return folder


def test_csv_is_ordered_by_val_and_says_sealed(built: Path) -> None:
    text = (built / "metrics/leaderboard.csv").read_text()
    assert text.splitlines()[0] == (
        "rank,attempt,label,architecture,encoder,prior,lr,augmentation,dropout,loss,best_epoch,"
        "val_iou,val_iou_low,val_iou_high,val_f1,val_f1_low,val_f1_high,val_vs_leader,"
        "test_iou,test_iou_low,test_iou_high,test_f1,test_f1_low,test_f1_high,test_vs_leader,"
        "looks,minutes,trainable_parameters,adapter_parameters"
    )
    assert text.splitlines()[1:] == [
        "1,better,better,unet,resnet34,resnet34_imagenet,0.001,medium,0.3,0.5 BCE + 0.5 Dice,2,"
        "0.875,,,0.933333,,,leader,"
        "0.875,,,0.933333,,,leader,1,1.25,5150000,0",
        "2,worse,worse,unet,resnet34,resnet34_imagenet,1e-05,medium,0.3,BCE,2,"
        "0.625,,,0.769231,,,behind,"
        "0.625,,,0.769231,,,behind,2,1.25,5150000,0",
        "3,sam,sam (no SAM weights),sam_conv,sam_vit_b,scratch,0.001,medium,0.3,"
        "0.25 BCE + 0.75 Dice,2,"
        "0.25,,,0.4,,,behind,"
        "sealed,sealed,sealed,sealed,sealed,sealed,sealed,0,1.25,5150000,0",
    ]


def test_the_short_page_has_only_the_headline(built: Path) -> None:
    text = headline(read(built))
    header, *body = rows(text)
    assert header == ["rank", "attempt", "val IoU", "", "val F1", "test IoU", "", "test F1"]
    assert body == [
        ["1", "`better`", "0.875", "leader", "0.933",
         "0.875", "leader", "0.933"],
        ["2", "`worse`", "0.625", "behind", "0.769",
         "0.625", "behind", "0.769"],
        ["3", "`sam` no SAM weights", "0.250", "behind", "0.400",
         "sealed", "", "sealed"],
    ]  # fmt: skip
    assert text.startswith("# Leaderboard on city, 32 px\n\n3 attempts, scored on 2 validation and")
    assert "excess green < 120" in text
    assert "Not above it: **sam (no SAM weights)**." in text
    assert "`roofseg finalize NAME`" in text
    assert "](../report.md)" in text
    assert "leftover" not in text


def test_sealed_test_and_missing_weights_are_mentioned_only_where_they_occur(root: Path) -> None:
    text = headline(read(root, ["better"]))
    assert "sealed" not in text
    assert "SAM" not in text
    assert "Every attempt is above it." in text
    assert "more than once" not in text
    assert "Synthetic" not in text


def test_json_has_null_where_test_is_sealed_and_all_scores(built: Path) -> None:
    board = read_board(built)
    assert board["dataset"] == "city"
    assert board["tiles"] == {"val": 2, "test": 3}
    assert board["floor"] == FLOOR
    first, second, last = board["attempts"]
    assert (first["rank"], first["attempt"], first["lr"]) == (1, "better", 0.001)
    assert first["scores"]["test"]["iou_pooled"] == 0.875
    assert (last["test_iou"], last["test_f1"], last["test_iou_low"]) == (None, None, None)
    assert (first["val_iou_low"], first["val_iou_high"]) == (None, None)
    assert [row["val_vs_leader"] for row in board["attempts"]] == ["leader", "behind", "behind"]
    assert last["trainable_parameters"] == 5_150_000
    assert [row["costs"]["iou_per_hour"] for row in (first, second, last)] == [42, 30, 12]
    assert first["costs"]["peak_memory_gb"] == 1.5
    assert [(row["split"], row["attempt"], row["than"]) for row in board["comparisons"]] == [
        ("val", "worse", "better"), ("val", "sam", "better"), ("val", "sam", "worse"),
        ("test", "worse", "better"),
    ]  # fmt: skip


def test_the_spread_over_seeds_is_beside_the_intervals_over_tiles(root: Path) -> None:
    spread = {
        "better": SeedSpread(4, 0.8, 0.0123, "epochs 6, draws_per_epoch 24"),
        "worse": SeedSpread(3, 0.6, 0.03, "epochs 6, draws_per_epoch 24"),
    }
    text = headline(read(root, seed_spread=spread))
    assert [row[1:5] for row in rows(text)] == [
        ["attempt", "val IoU", "sd over seeds", ""],
        ["`better`", "0.875", "0.012, 4 seeds", "leader"],
        ["`worse`", "0.625", "0.030, 3 seeds", "behind"],
        ["`sam` no SAM weights", "0.250", "\N{EN DASH}", "behind"],
    ]
    assert (
        "The column `sd over seeds` is the standard deviation of val IoU over trainings that "
        "differ only in their seed (`roofseg studies seeds`), measured with epochs 6, "
        "draws_per_epoch 24 in place of the recipe's values. A gap between two attempts that is "
        "smaller than this spread is not settled by one training. A dash means that it was not "
        "measured with the present recipe: sam." in text
    )
    first, _, last = read_board(root)["attempts"]
    assert first["seed_spread"] == {
        "seeds": 4, "val_iou": 0.8, "sd": 0.0123, "overrides": "epochs 6, draws_per_epoch 24",
    }  # fmt: skip
    assert last["seed_spread"] is None


def test_a_spread_of_all_attempts_without_overrides_names_neither(root: Path) -> None:
    text = headline(read(root, ["better"], seed_spread={"better": SeedSpread(4, 0.8, 0.01, "")}))
    assert "(`roofseg studies seeds`). A gap" in text
    assert "in place of" not in text
    assert "not measured" not in text


def test_without_a_spread_over_seeds_one_sentence_says_how_to_measure_it(built: Path) -> None:
    text = headline(read(built))
    assert "sd over seeds" not in text
    said = "The spread over seeds was not measured here; `roofseg studies seeds` measures it."
    assert text.count(said) == 1
    assert text.count("one training with one seed") == 1
    assert {row["seed_spread"] for row in read_board(built)["attempts"]} == {None}


@pytest.mark.whole
def test_whole_tiles_have_columns_where_all_attempts_were_scored_on_them(root: Path) -> None:
    for name, splits in {"worse": ["val"], "better": ["val", "test"]}.items():
        tiles = read_tiles(root / "metrics/attempts" / name)
        for split in splits:
            # An additional whole tile scores 0.
            whole = tiles[tiles.split == split].assign(split=f"{split}_full_tiles")
            lost = whole.iloc[:1].assign(tile="lost", fn=whole.tp.iloc[0], tp=0)
            tiles = pd.concat([tiles, whole, lost])
        rescore(root, name, tiles)
    text = headline(read(root, ["worse", "better"]))
    header, better, worse = rows(text)
    assert header[7:] == ["test F1", "val IoU, whole tiles", "test IoU, whole tiles"]
    assert better[8:] == ["0.583 [0.000, 1.000]", "0.656 [0.000, 1.000]"]
    assert worse[8:] == ["0.417 [0.000, 1.000]", "sealed"]
    assert "every pixel of a tile" in text
    first = (root / "metrics/leaderboard.csv").read_text().splitlines()[0]
    assert (
        "test_vs_leader,val_full_tiles_iou,val_full_tiles_iou_low,val_full_tiles_iou_high,"
        "test_full_tiles_iou,test_full_tiles_iou_low,test_full_tiles_iou_high,looks" in first
    )
    # With the third attempt, which was not scored on whole tiles, there are no such columns.
    assert "hole tiles" not in headline(read(root))


def test_the_plot_of_scores_marks_ties(root: Path) -> None:
    set_missed(root, "better", "test", [30, 5, 60])
    set_missed(root, "worse", "test", [15, 30, 40])
    read(root)
    points = pd.read_csv(root / "plots/leaderboard.csv")
    assert list(points.columns) == ["attempt", "split", "iou", "low", "high", "vs_leader"]
    assert list(points.attempt) == [*LABELS, *LABELS[:2]]
    assert list(points.split) == ["val"] * 3 + ["test"] * 2
    assert list(points.vs_leader) == ["behind", "leader", "behind", "tie", "leader"]
    assert points.iou[4] == pytest.approx((0.7 + 0.95 + 0.4) / 3, abs=1e-6)


def test_a_single_tile_has_no_interval_and_is_not_called_sealed(root: Path) -> None:
    for name in ("one", "other"):
        add_attempt(root, name, {"one": 2, "other": 6}[name], {"val": ["v1"]})
    found = read(root, ["one", "other"])
    _, one, other = rows(headline(found))
    assert (one[2:4], other[2:4]) == (["0.875", "leader"], ["0.625", ""])
    board = pd.read_csv(root / "metrics/leaderboard.csv", keep_default_na=False)
    assert list(board.val_iou_low) == ["", ""]
    assert list(board.test_iou_low) == ["sealed", "sealed"]
    assert read_board(root)["attempts"][0]["val_iou_low"] is None


def test_measures_of_tiles_have_intervals(root: Path) -> None:
    tiles = read_tiles(root / "metrics/attempts/better")
    tiles["boundary_iou"] = [0.39, 0.41, 0.5, 0.5, 0.5]
    tiles["boundary_iou_m"] = [0.2, None, 0.5, 0.5, 0.5]  # the GSD of one val tile is unknown
    rescore(root, "better", tiles, val={"ece": 0.05})
    table = measures(read(root)).blocks[1]
    assert table.header == ["attempt", "precision", "recall", "boundary IoU, 3 px", "ECE"]
    better, worse, _ = [[str(cell) for cell in row] for row in table.rows]
    assert better[1] == "1.000"
    assert better[-2:] == ["0.400 [0.273, 0.527]", "0.050"]
    assert worse[-2:] == ["\N{EN DASH}", "\N{EN DASH}"]
    found = read_board(root)["attempts"][0]["measures"]["val"]
    assert found["boundary_iou"] == pytest.approx(
        {"value": 0.4, "low": 0.4 - 0.127062, "high": 0.4 + 0.127062}, abs=1e-6
    )
    assert found["ece"] == {"value": 0.05, "low": None, "high": None}
    assert "boundary_iou_m" not in found


def test_plots_have_the_reliability_and_sizes_of_val(built: Path) -> None:
    bins = pd.read_csv(built / "plots/reliability.csv")
    assert list(bins.columns) == ["attempt", "probability", "building", "pixels"]
    # Bins without pixels are left out.
    assert list(bins.attempt) == LABELS
    assert list(bins.building) == [0.06, 0.02, 0.12]
    sizes = pd.read_csv(built / "plots/sizes.csv")
    assert list(sizes.attempt) == [label for label in LABELS for _ in range(2)]
    assert sizes[:2].drop(columns="attempt").to_dict("records") == [
        {"size": "0-50 m2", "buildings": 4, "share_found": 0.25, "pixel_recall": 0.4},
        {"size": "100+ m2", "buildings": 2, "share_found": 1, "pixel_recall": 0.9},
    ]


def test_curves_of_all_attempts_are_in_the_order_of_the_parameters(
    built: Path,
) -> None:
    curves = pd.read_csv(built / "plots/convergence.csv")
    assert list(curves.columns) == ["attempt", "epoch", "val_iou"]
    assert list(curves.attempt) == [label for label in LABELS for _ in range(3)]
    assert list(curves.epoch) == [1, 2, 3] * 3
    assert curves.val_iou[curves.attempt == "better"].tolist() == [0.4375, 0.875, 0.865]
    points = pd.read_csv(built / "plots/precision_recall.csv")
    assert list(points.columns) == ["attempt", "threshold", "precision", "recall"]
    assert points.groupby("attempt", sort=False).size().to_dict() == dict.fromkeys(LABELS, 101)


def test_every_plot_of_dvc_has_its_columns(built: Path) -> None:
    """The files, columns and templates that dvc.yaml plots exist."""
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    shown = {title: plot for group in plots for title, plot in group.items()}
    assert shown
    for title, plot in shown.items():
        assert (ROOT / ".dvc/plots" / f"{plot['template']}.json").exists(), title
        for file, column in plot["y"].items():
            assert {plot["x"], column} <= set(pd.read_csv(built / file).columns), title


def contents(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as the current folder, for the stage."""
    monkeypatch.chdir(root)
    params = PARAMS.replace("dataset: tiny", "dataset: city").replace("size: 64", "size: 32")
    model = "architecture: unet, encoder: resnet34, prior: scratch"
    attempts = {f"  {name}: {{{model}}}": f"  {name}: null" for name in ATTEMPTS}
    parts = [params[: params.index("attempts:")], "attempts:", *attempts]
    (root / "params.yaml").write_text("\n".join([*parts, "final:", *attempts.values(), ""]))
    write_dataset(root / "data/city", SPLIT, size=8)
    write_csv(root / "metrics/seed_spread.csv", pd.DataFrame(columns=COLUMNS))
    return root


@pytest.mark.whole
def test_the_stage_writes_the_same_bytes_again(project: Path) -> None:
    stage.main()
    first = contents(project)
    stage.main()
    assert contents(project) == first
    pages = [
        first[name].decode() for name in ("report.html", "report.md", "metrics/leaderboard.md")
    ]
    assert pages == list(build(project))
    stage_outs = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["leaderboard"]["outs"]
    outs = {out if isinstance(out, str) else next(iter(out)) for out in stage_outs}
    before = contents(add_results(project.parent / "before")).keys()
    given = {name for name in first if name.startswith("data/")}
    assert first.keys() - before - given - {"params.yaml", "metrics/seed_spread.csv"} == outs


@pytest.mark.whole
def test_the_stage_shows_the_spread_of_the_recipes_that_it_was_measured_with(
    project: Path,
) -> None:
    params = read_params(Path("params.yaml"))
    data = Path("data/city")
    recipes = {
        name: recipe_of(params.recipe(name), params, read_split(data), read_nudges(data))
        for name in ("better", "worse")
    }
    recipes["worse"] |= {"lr": 0.5}  # an earlier recipe
    rows_of = [
        ("city", 32, name, 4, 0.8, 0.01, "epochs 6", digest_without_seed(recipe, "epochs 6"))
        for name, recipe in recipes.items()
    ]
    write_csv(Path("metrics/seed_spread.csv"), pd.DataFrame(rows_of, columns=COLUMNS))
    stage.main()
    spread = {row["attempt"]: row["seed_spread"] for row in read_board(project)["attempts"]}
    better = {"seeds": 4, "val_iou": 0.8, "sd": 0.01, "overrides": "epochs 6"}
    assert spread == {"better": better, "worse": None, "sam": None}
    for page in ("report.html", "report.md", "metrics/leaderboard.md"):
        assert Path(page).read_text().count("present recipe: worse and sam") == 1, page


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("requirements.lock", "git checkout"),
        ("metrics/baselines.json", "dvc repro baselines"),
        ("metrics/seed_spread.csv", "git checkout"),
        ("metrics/attempts/better/training.json", "dvc repro train@better"),
        ("metrics/attempts/better/scores.json", "dvc repro evaluate@better"),
        ("metrics/attempts/sam/sizes.csv", "dvc repro evaluate@sam"),
        ("metrics/attempts/better/inference_times.json", "dvc repro evaluate@better"),
        ("predictions/better/val/panels/v1.png", "dvc repro evaluate@better"),
    ],
)
def test_the_stage_names_a_missing_file_and_its_remedy_and_writes_nothing(
    project: Path, missing: str, remedy: str
) -> None:
    Path(missing).unlink()
    before = contents(project)
    with pytest.raises(UserError) as error:
        stage.main()
    assert missing in str(error.value)
    assert remedy in str(error.value)
    assert contents(project) == before


@pytest.mark.whole
def test_the_stage_does_not_wait_for_torch_and_cannot_reach_patches() -> None:
    code = (
        "import sys, stages.leaderboard; "
        "unwanted = {'torch', 'roofseg.patches', 'roofseg.evaluation.sealed_split'}; "
        "print(unwanted & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_single_attempt_is_not_compared(root: Path) -> None:
    assert not against_leader(read(root, ["better"])).blocks
    assert read_board(root)["comparisons"] == []


def test_no_test_column_while_all_is_sealed(root: Path) -> None:
    read(root, ["better"])
    text = headline(read(root, ["sam"]))
    assert rows(text)[0] == ["rank", "attempt", "val IoU", "", "val F1"]
    assert read_board(root)["tiles"] == {"val": len(OPEN["val"]), "test": None}
    assert set(pd.read_csv(root / "plots/leaderboard.csv").split) == {"val"}


def test_the_stage_depends_on_the_templates_and_the_lock() -> None:
    deps = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["leaderboard"]["deps"]
    templates = [path.relative_to(ROOT).as_posix() for path in TEMPLATES.iterdir()]
    assert templates
    for name in [*templates, "requirements.lock"]:
        assert any(f"{name}/".startswith(f"{dep}/") for dep in deps), name


def test_the_pages_say_how_much_is_labelled(tmp_path: Path) -> None:
    pages = build(add_results(tmp_path))
    assert "abelled" not in pages.text + pages.headline
    for name in ATTEMPTS:
        tiles = read_tiles(tmp_path / "metrics/attempts" / name)
        tiles.loc[tiles.tile == "v1", "tn"] -= 256
        rescore(tmp_path, name, tiles)
    pages = build(tmp_path)
    line = "Labelled pixels: 87.5% of validation (least: 75.0%, v1); nothing is scored on the"
    assert line in pages.text
    assert line in pages.headline
    assert "Hatched pixels are not labelled." in pages.html
