from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from graph import ROOT
from ruamel.yaml import YAML
from small_entries import entry, recipe

from roofseg import drawing, metrics
from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.core.images import read_image, write_png
from roofseg.recipe.params import Recipe
from roofseg.report.comparisons import compare_with_leader
from roofseg.report.leaderboard import leaderboard
from roofseg.report.leaderboard_plots import MAX_ROWS
from roofseg.report.leaderboard_text import above_floor, sign_flips
from roofseg.results.intervals import Interval
from roofseg.results.test_ledger import Look, record_look

SIDE = 32
CELL = drawing.CELL + drawing.GAP
FLOOR = {
    "constant": {"mask": "all building", "val": {"iou": 0.2, "f1": 0.3}},
    "colour_threshold": {
        "channel": "excess_green",
        "direction": "below",
        "threshold": 120,
        "train_iou": 0.4,
        "val": {"iou": 0.35, "f1": 0.5},
    },
}


RECIPES = {
    "worse": recipe(lr=1e-5, bce_weight=1.0),
    "better": recipe(),
    "sam": recipe(architecture="sam_conv", encoder="sam_vit_b", prior="scratch", bce_weight=0.25),
}
COSTS = {
    "total_parameters": 6_000_000,
    "trainable_parameters": 5_150_000,
    "multiply_adds_per_patch": 250_000_000,
    "multiply_adds_per_megapixel": 50_000_000_000,
    "model_bytes": 24_000_000,
}
INFERENCE = {
    "megapixels_per_second": 2.3,
    "device": "cpu",
    "precision": "32-true",
    "threads": 2,
    "batch_size": 4,
    "patch_size": SIDE,
}
# Of 32 rows, how many each attempt gets wrong at the top of a mask that fills the lower half.
WRONG_ROWS = {"worse": 6, "better": 2, "sam": 12}


# Worse: two recipes were scored on the city's test tiles, one of them trained twice; and once on
# another dataset's.
LOOKS = {"worse": [("city", "a"), ("city", "b"), ("city", "b"), ("town", "a")], "sam": []}


def add_looks(path: Path, looks: list[tuple[str, str]]) -> None:
    for number, (dataset, digest) in enumerate(looks):
        look = Look(digest, "1", f"weights {number}", dataset, f"test of {dataset}", "", "", "")
        record_look(path, look)
    record_look(path, None)


def add_attempt(root: Path, name: str, wrong: int, tiles: dict[str, list[str]]) -> None:
    """Write what train and evaluate leave of an attempt."""
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[SIDE // 2 :] = 1
    mask = np.zeros_like(truth)
    mask[SIDE // 2 + wrong :] = 1
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    folder = root / "metrics/attempts" / name
    scores, tables, curves = {}, {}, {}
    for split, names in tiles.items():
        table = metrics.table(names, np.stack([mask] * len(names)), np.stack([truth] * len(names)))
        tables[split], scores[split] = table, metrics.summarise(table)
        curves[split] = metrics.precision_recall(metrics.histogram(mask * 0.7, truth))
        for tile in names:
            path = root / "predictions" / name / split / "panels" / f"{tile}.png"
            write_png(path, drawing.panel(image, truth, mask))
    write_json(folder / "scores.json", scores)
    for file, parts in {"tiles.csv": tables, "pr.csv": curves}.items():
        table = pd.concat(parts, names=["split", None]).reset_index("split")
        table.to_csv(folder / file, index=False)
    write_json(
        folder / "training.json",
        {
            "digest": "0" * 12,
            "result": {
                "best_epoch": 2,
                "epochs_run": 3,
                "trainable_parameters": 5_150_000,
                "device": "cpu",
                "precision": "bf16-mixed",
            },
        },
    )
    add_looks(folder / "test_looks.csv", LOOKS.get(name, [("city", "a")]))
    write_json(
        folder / "times.json", {"minutes": 1.25, "seconds_per_epoch": 25.0, "peak_memory_gb": 1.5}
    )
    write_json(folder / "costs.json", COSTS)
    write_json(folder / "inference_times.json", INFERENCE)
    bins = pd.DataFrame(
        {"pixels": [900, 0], "probability": [0.1, None], "building": [wrong / 100, None]}
    )
    sizes = pd.DataFrame(
        {
            "unit": "m2",
            "size": ["0-50", "50-100", "100+"],
            "buildings": [4, 0, 2],
            "found": [1, 0, 2],
            "pixel_recall": [0.4, None, 0.9],
        }
    )
    for file, part in {"reliability.csv": bins, "sizes.csv": sizes}.items():
        by_split = pd.concat([part.assign(split=split) for split in tiles])
        by_split.to_csv(folder / file, index=False)
    live = folder / "live/plots/metrics/val/iou.tsv"
    live.parent.mkdir(parents=True)
    best = scores["val"]["iou"]
    # The last as DVCLive writes what is not finite.
    live.write_text(f"step\tiou\n1\t{best / 2}\n2\t{best}\n3\t{best - 0.01}\n4\tNaN\n")


def add_results(root: Path) -> Path:
    """Two attempts that are final, one whose test is sealed, and leftovers of a removed one."""
    open_ = {"val": ["v1", "NA"], "test": ["t1", "t2", "t3"]}
    for name, wrong in WRONG_ROWS.items():
        add_attempt(root, name, wrong, {"val": open_["val"]} if name == "sam" else open_)
    add_attempt(root, "leftover", 0, open_)
    write_json(root / "metrics/baselines.json", FLOOR)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Results whose leaderboard is still to be built."""
    return add_results(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with their leaderboard, to be read only."""
    folder = add_results(tmp_path_factory.mktemp("board"))
    build(folder)
    return folder


def build(root: Path, recipes: dict[str, Recipe] = RECIPES, dataset: str = "city") -> str:
    return leaderboard(
        recipes,
        dataset=dataset,
        patch_size=SIDE,
        results=root / "metrics/attempts",
        predictions=root / "predictions",
        baselines=root / "metrics/baselines.json",
        metrics=root / "metrics",
        plots=root / "plots",
    )


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, its header first."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_csv_is_ordered_by_val_and_says_sealed(built: Path) -> None:
    text = (built / "metrics/leaderboard.csv").read_text()
    assert text.splitlines()[0] == (
        "rank,attempt,label,architecture,encoder,prior,lr,augmentation,dropout,loss,best_epoch,"
        "val_iou,val_iou_low,val_iou_high,val_f1,val_f1_low,val_f1_high,val_standing,"
        "test_iou,test_iou_low,test_iou_high,test_f1,test_f1_low,test_f1_high,test_standing,"
        "looks,minutes,trainable_parameters"
    )
    assert text.splitlines()[1:] == [
        "1,better,better,unet,resnet34,resnet34_imagenet,0.001,medium,0.3,0.5 BCE + 0.5 Dice,2,"
        "0.875,0.875,0.875,0.933333,0.933333,0.933333,leader,"
        "0.875,0.875,0.875,0.933333,0.933333,0.933333,leader,1,1.25,5150000",
        "2,worse,worse,unet,resnet34,resnet34_imagenet,1e-05,medium,0.3,BCE,2,"
        "0.625,0.625,0.625,0.769231,0.769231,0.769231,behind,"
        "0.625,0.625,0.625,0.769231,0.769231,0.769231,behind,2,1.25,5150000",
        "3,sam,sam (no SAM weights),sam_conv,sam_vit_b,scratch,0.001,medium,0.3,"
        "0.25 BCE + 0.75 Dice,2,"
        "0.25,0.25,0.25,0.4,0.4,0.4,behind,"
        "sealed,sealed,sealed,sealed,sealed,sealed,sealed,0,1.25,5150000",
    ]


def test_markdown_has_every_column_and_labels_sam_without_its_weights(built: Path) -> None:
    text = (built / "metrics/leaderboard.md").read_text()
    header, _, *body = rows(text)
    assert header == [
        "#", "model", "encoder", "prior", "lr", "augmentation", "dropout", "loss", "best epoch",
        "val IoU", "val F1", "test IoU", "test F1", "looks", "minutes", "trainable parameters",
    ]  # fmt: skip
    assert body[0] == [
        "1", "better", "resnet34", "resnet34_imagenet", "0.001", "medium", "0.3",
        "0.5 BCE + 0.5 Dice", "2", "0.875 [0.88, 0.88]", "0.933 [0.93, 0.93]",
        "0.875 [0.88, 0.88]", "0.933 [0.93, 0.93]", "1", "1.2", "5.15 M",
    ]  # fmt: skip
    assert "| --: |" in text, "a rule of Markdown needs a hyphen in every column"
    assert body[2][3] == "scratch (no SAM weights)"
    assert body[2][11:14] == ["sealed", "sealed", "0"]
    assert body[1][13] == "**2**"
    assert "more than one recipe of worse was scored on these test tiles" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 2, "two tables"
    assert "2 in val and 3 in test" in text
    assert "excess green < 120" in text
    assert "Not above it: sam." in text
    assert "roofseg finalize" in text
    assert "leftover" not in text


def test_markdown_of_the_sample_says_that_it_is_synthetic(built: Path, root: Path) -> None:
    assert "Synthetic" not in (built / "metrics/leaderboard.md").read_text()
    assert "Synthetic" in build(root, {"better": recipe()}, dataset="sample")


def test_nothing_is_called_sealed_or_without_weights_where_nothing_is(root: Path) -> None:
    text = build(root, {"better": recipe()})
    assert "sealed" not in text
    assert "SAM" not in text
    assert "Every attempt is above it." in text
    assert "Looks" not in text


def test_json_has_null_where_test_is_sealed_and_all_scores(built: Path) -> None:
    board = json.loads((built / "metrics/leaderboard.json").read_text())
    assert board["dataset"] == "city"
    assert board["tiles"] == {"val": 2, "test": 3}
    assert board["floor"] == FLOOR
    first, _, last = board["attempts"]
    assert (first["rank"], first["attempt"], first["lr"]) == (1, "better", 0.001)
    assert first["scores"]["test"]["iou_pooled"] == 0.875
    assert (last["test_iou"], last["test_f1"], last["test_iou_low"]) == (None, None, None)
    assert (first["val_iou_low"], first["val_iou_high"]) == (0.875, 0.875)
    assert [row["val_standing"] for row in board["attempts"]] == ["leader", "behind", "behind"]
    assert last["trainable_parameters"] == 5_150_000


def test_whole_tiles_have_columns_where_all_attempts_were_scored_on_them(root: Path) -> None:
    for name, splits in {"worse": ["val"], "better": ["val", "test"]}.items():
        folder = root / "metrics/attempts" / name
        scores = json.loads((folder / "scores.json").read_text())
        tiles = pd.read_csv(folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False)
        for split in splits:
            scores[f"{split}_full_tiles"] = scores[split]
            # One tile in four is as bad as can be.
            whole = tiles[tiles.split == split].assign(split=f"{split}_full_tiles")
            lost = whole.iloc[:1].assign(tile="lost", fn=whole.tp.iloc[0], tp=0)
            tiles = pd.concat([tiles, whole, lost])
        write_json(folder / "scores.json", scores)
        tiles.to_csv(folder / "tiles.csv", index=False)
    two = {name: RECIPES[name] for name in ("worse", "better")}
    text = build(root, two)
    header, _, better, worse = rows(text)[:4]
    assert header[12:15] == ["test F1", "val IoU, whole tiles", "test IoU, whole tiles"]
    assert better[13:15] == ["0.583 [0.00, 0.88]", "0.656 [0.22, 0.88]"]
    assert worse[13:15] == ["0.417 [0.00, 0.62]", "sealed"]
    assert "- **Whole tiles**: " in text
    first = (root / "metrics/leaderboard.csv").read_text().splitlines()[0]
    assert (
        "test_standing,val_full_tiles_iou,val_full_tiles_iou_low,val_full_tiles_iou_high,"
        "test_full_tiles_iou,test_full_tiles_iou_low,test_full_tiles_iou_high,looks" in first
    )
    # Of three attempts, one was not.
    assert "hole tiles" not in build(root)


def noisy(root: Path, name: str, shifts: list[int]) -> None:
    """Move some pixels from right to wrong in the tiles of test, and score them again."""
    folder = root / "metrics/attempts" / name
    tiles = pd.read_csv(folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False)
    of_test = tiles.split == "test"
    tiles.loc[of_test, "tp"] -= shifts
    tiles.loc[of_test, "fn"] += shifts
    tiles.to_csv(folder / "tiles.csv", index=False)
    scores = json.loads((folder / "scores.json").read_text())
    write_json(folder / "scores.json", {**scores, "test": metrics.summarise(tiles[of_test])})


def test_ties_are_marked_and_explained(root: Path) -> None:
    noisy(root, "better", [100, 0, 250])
    noisy(root, "worse", [-50, 20, 0])
    text = build(root)
    *_, better, worse, sam = rows(text)[:5]
    assert better[11].endswith("]")
    assert worse[11].endswith("] tie")
    assert (worse[9], sam[9]) == ("0.625 [0.62, 0.62]", "0.250 [0.25, 0.25]")
    assert "with better, the leader by val: on val, none; on test, worse." in text
    assert "None can be below 0.5 on 2 tiles or 0.25 on 3 tiles." in text
    assert "Of worse on val, sam on val p is above 0.05" in text
    assert "exact sign flips" in text
    found = pd.read_csv(root / "metrics/comparisons.csv")
    assert list(found.columns) == [
        "split", "attempt", "leader", "difference", "low", "high", "p_value", "floor", "tie",
    ]  # fmt: skip
    assert found[["split", "attempt", "tie"]].to_numpy().tolist() == [
        ["val", "worse", False],
        ["val", "sam", False],
        ["test", "worse", True],
    ]
    points = pd.read_csv(root / "plots/leaderboard.csv")
    assert list(points.attempt[:3]) == ["worse", "better", "sam (no SAM weights)"]
    assert list(points.standing) == ["behind", "leader", "behind", "tie", "leader"]


def test_an_attempt_alone_has_nobody_to_tie_with(root: Path) -> None:
    text = build(root, {"better": recipe()})
    assert "Ties" not in text
    assert "p-value" not in text
    assert len((root / "metrics/comparisons.csv").read_text().splitlines()) == 1


def test_a_single_tile_has_no_interval_and_is_not_called_sealed(root: Path) -> None:
    for name in ("one", "other"):
        add_attempt(root, name, {"one": 2, "other": 6}[name], {"val": ["v1"]})
    text = build(root, {"one": recipe(), "other": recipe()})
    _, _, one, other = rows(text)[:4]
    assert (one[9], other[9]) == ("0.875", "0.625 tie")
    assert "None can be below 1 on 1 tile." in text
    board = pd.read_csv(root / "metrics/leaderboard.csv", keep_default_na=False)
    assert list(board.val_iou_low) == ["", ""]
    assert list(board.test_iou_low) == ["sealed", "sealed"]
    first = json.loads((root / "metrics/leaderboard.json").read_text())["attempts"][0]
    assert first["val_iou_low"] is None


def test_more_measures_are_shown_where_they_are_known(root: Path) -> None:
    assert "boundary IoU, 3 px |" not in build(root)
    path = root / "metrics/attempts/better/scores.json"
    scores = json.loads(path.read_text())
    scores["val"] |= {"boundary_iou": 0.4321, "ece": 0.05}
    write_json(path, scores)
    header, _, better, worse, _ = rows(build(root))[5:]
    assert header == ["model", "precision", "recall", "boundary IoU, 3 px", "ECE"]
    surely = "1.000 [1.00, 1.00]"
    assert better == ["better", surely, "0.875 [0.88, 0.88]", "0.432", "0.050"]
    assert worse == ["worse", surely, "0.625 [0.62, 0.62]", "", ""]


def test_measures_of_tiles_have_intervals(root: Path) -> None:
    folder = root / "metrics/attempts/better"
    tiles = pd.read_csv(folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False)
    tiles["boundary_iou"] = [0.2, 0.6, 0.5, 0.5, 0.5]
    tiles["boundary_iou_m"] = [0.2, None, 0.5, 0.5, 0.5]  # of a tile the GSD is unknown
    tiles.to_csv(folder / "tiles.csv", index=False)
    scores = json.loads((folder / "scores.json").read_text())
    scores["val"] |= {"boundary_iou": 0.4, "ece": 0.05}
    write_json(folder / "scores.json", scores)
    header, _, better, *_ = rows(build(root))[5:]
    assert header == ["model", "precision", "recall", "boundary IoU, 3 px", "ECE"]
    assert better[-2:] == ["0.400 [0.20, 0.60]", "0.050"]
    board = json.loads((root / "metrics/leaderboard.json").read_text())
    found = board["attempts"][0]["measures"]["val"]
    assert found["boundary_iou"] == {"value": 0.4, "low": 0.2, "high": 0.6}
    assert found["ece"] == {"value": 0.05, "low": None, "high": None}


def test_the_floor_may_be_above_or_within_the_interval_of_an_attempt() -> None:
    low, near, sure = Interval(0.3, 0.1, 0.5), Interval(0.4, 0.3, 0.5), Interval(0.6, 0.5, 0.7)
    assert above_floor([("a", sure)], 0.35) == "Every attempt is above it."
    assert above_floor([("a", sure), ("b", near)], 0.35) == (
        "Every attempt is above it. It lies within the interval of b: on other tiles of this kind "
        "it might not be above it."
    )
    assert above_floor([("a", sure), ("c", low)], 0.35) == "Not above it: c."
    # A single tile has no interval.
    alone = Interval(0.4, float("nan"), float("nan"))
    assert above_floor([("a", alone)], 0.35) == "Every attempt is above it."


@pytest.mark.parametrize(
    ("tiles", "flips"),
    [
        ((6, 16), "exact sign flips"),
        ((6, 17), "exact sign flips up to 16 tiles, 10,000 random ones beyond"),
        ((20, 17), "10,000 random sign flips"),
    ],
)
def test_the_test_of_each_split_is_named(tiles: tuple[int, int], flips: str) -> None:
    counts = dict(zip(("val", "test"), tiles, strict=True))
    order = [
        entry(name, {split: [iou] * count for split, count in counts.items()})
        for name, iou in (("one", 0.8), ("other", 0.7))
    ]
    assert sign_flips(compare_with_leader(order), counts)[0] == flips


def test_costs_have_a_table_and_a_page(built: Path) -> None:
    costs = pd.read_csv(built / "metrics/costs.csv")
    assert list(costs.attempt) == ["better", "worse", "sam"]
    assert list(costs.iou_per_hour) == [42, 30, 12]
    assert list(costs.peak_memory_gb) == [1.5] * 3
    text = (built / "metrics/costs.md").read_text()
    assert [row[0] for row in rows(text)[2:]] == ["better", "worse", "sam"]
    assert "[costs.md](costs.md)" in (built / "metrics/leaderboard.md").read_text()


def test_reliability_and_sizes_of_val_are_gathered(built: Path) -> None:
    labels = ["worse", "better", "sam (no SAM weights)"]
    bins = pd.read_csv(built / "plots/reliability.csv")
    assert list(bins.columns) == ["attempt", "probability", "building", "pixels"]
    # Bins without pixels are left out.
    assert list(bins.attempt) == labels
    assert list(bins.building) == [0.06, 0.02, 0.12]
    sizes = pd.read_csv(built / "plots/sizes.csv")
    assert list(sizes.attempt) == [label for label in labels for _ in range(2)]
    assert sizes[:2].drop(columns="attempt").to_dict("records") == [
        {"size": "0-50 m2", "buildings": 4, "share_found": 0.25, "pixel_recall": 0.4},
        {"size": "100+ m2", "buildings": 2, "share_found": 1, "pixel_recall": 0.9},
    ]


def test_every_text_plot_of_dvc_has_its_columns(built: Path) -> None:
    """Each file and column that dvc.yaml plots is there, and each template that it names."""
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    pictures = [name for name in plots if isinstance(name, str)]
    assert all((built / name).exists() for name in pictures)
    for plot in plots:
        for title, shown in plot.items() if isinstance(plot, dict) else ():
            assert (ROOT / ".dvc/plots" / f"{shown['template']}.json").exists(), title
            for file, column in shown["y"].items():
                assert {shown["x"], column} <= set(pd.read_csv(built / file).columns), title


def test_curves_of_all_attempts_in_the_order_of_the_parameters(built: Path) -> None:
    curves = pd.read_csv(built / "plots/convergence.csv")
    assert list(curves.columns) == ["attempt", "epoch", "val_iou"]
    names = ["worse", "better", "sam (no SAM weights)"]
    assert list(curves.attempt) == [name for name in names for _ in range(3)]
    assert list(curves.epoch) == [1, 2, 3] * 3
    assert curves.val_iou[curves.attempt == "better"].tolist() == [0.4375, 0.875, 0.865]

    points = pd.read_csv(built / "plots/precision_recall.csv")
    assert list(points.columns) == ["attempt", "threshold", "precision", "recall"]
    assert points.groupby("attempt", sort=False).size().to_dict() == dict.fromkeys(names, 101)
    expected = drawing.convergence(curves)
    np.testing.assert_array_equal(read_image(built / "plots/convergence.png"), expected)


def columns_in(path: Path) -> float:
    return (read_image(path).shape[1] - drawing.LEFT) / CELL


def test_comparisons_leave_sealed_attempts_out_of_test(built: Path) -> None:
    assert columns_in(built / "plots/comparisons/val.png") == 2 + 3
    assert columns_in(built / "plots/comparisons/test.png") == 2 + 2


def test_no_picture_of_test_while_all_is_sealed(root: Path) -> None:
    build(root, {"better": recipe()})
    text = build(root, {"sam": RECIPES["sam"]})
    assert [path.name for path in (root / "plots/comparisons").iterdir()] == ["val.png"]
    assert "2 in val and none opened in test" in text


def test_a_comparison_of_many_tiles_shows_some_of_them(root: Path) -> None:
    add_attempt(root, "many", 3, {"val": [f"tile{index}" for index in range(40)]})
    build(root, {"many": recipe()})
    height = read_image(root / "plots/comparisons/val.png").shape[0]
    down = CELL + drawing.CAPTION
    assert (height - drawing.TOP - drawing.BOTTOM) / down == MAX_ROWS


def test_built_again_it_is_the_same_bytes(root: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    build(root)
    first = contents()
    build(root)
    assert contents() == first


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("metrics/baselines.json", "dvc repro baselines"),
        ("metrics/attempts/better/training.json", "dvc repro train@better"),
        ("metrics/attempts/better/scores.json", "dvc repro evaluate@better"),
        ("metrics/attempts/better/inference_times.json", "dvc repro evaluate@better"),
        ("predictions/better/val/panels/v1.png", "dvc repro evaluate@better"),
    ],
)
def test_a_missing_input_is_named_with_the_command_that_makes_it(
    root: Path, missing: str, command: str
) -> None:
    (root / missing).unlink()
    with pytest.raises(UserError) as error:
        build(root)
    assert missing in str(error.value)
    assert command in str(error.value)
    assert not (root / "metrics/leaderboard.md").exists()
    assert not (root / "plots/comparisons").exists()


def test_the_stage_does_not_wait_for_torch_and_cannot_reach_patches() -> None:
    code = (
        "import sys, stages.leaderboard; "
        "print({'torch', 'roofseg.patches', 'roofseg.evaluation.sealed_test'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
