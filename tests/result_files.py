"""Write the files that training and evaluation write for attempts, and build their leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from records import trained_record
from small_entries import COSTS, FLOOR, INFERENCE, recipe

from roofseg import drawing, metrics
from roofseg.core.files import read_json, write_json
from roofseg.core.images import write_png
from roofseg.pages.page import html, markdown
from roofseg.recipe.params import Recipe
from roofseg.report.leaderboard import Leaderboard, read_leaderboard, write_machine_files
from roofseg.report.page import headline_page, report_page
from roofseg.results.intervals import known_scores
from roofseg.results.ledger import Look, record_look
from roofseg.results.seed_spread import SeedSpread

SIDE = 32
RECIPES = {
    "worse": recipe(lr=1e-5, bce_weight=1.0),
    "better": recipe(),
    "sam": recipe(architecture="sam_conv", encoder="sam_vit_b", prior="scratch", bce_weight=0.25),
}
OPEN = {"val": ["v1", "NA"], "test": ["t1", "t2", "t3"]}
# The true mask fills the lower half of 32 rows; each attempt misses this number of its top rows.
ATTEMPTS: dict[str, tuple[int, Mapping[str, list[str]]]] = {
    "worse": (6, OPEN),
    "better": (2, OPEN),
    "sam": (12, {"val": OPEN["val"]}),
}
# For the attempt `worse`, two recipes were scored on the test tiles of city (one of them trained
# twice), and one recipe on those of town.
LOOKS = {"worse": [("city", "a"), ("city", "b"), ("city", "b"), ("town", "a")], "sam": []}
LOCK = "torch==2.14.1 \\\n    --hash=sha256:aa\nnumpy==2.4.6\nunrelated==1.0\n"


def add_looks(path: Path, looks: Sequence[tuple[str, str]]) -> None:
    for number, (dataset, digest) in enumerate(looks):
        look = Look(digest, "1", f"weights {number}", dataset, f"test of {dataset}", "", "", "")
        record_look(path, look)
    record_look(path, None)


def add_attempt(
    root: Path,
    name: str,
    wrong: int,
    tiles: Mapping[str, list[str]] = OPEN,
    trained: Recipe | None = None,
) -> None:
    """Write the files that the stages train and evaluate write for an attempt."""
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[SIDE // 2 :] = 1
    mask = np.zeros_like(truth)
    mask[SIDE // 2 + wrong :] = 1
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    folder = root / "metrics/attempts" / name
    scores, tables, curves = {}, {}, {}
    for split, names in tiles.items():
        table = metrics.table(names, np.stack([mask] * len(names)), np.stack([truth] * len(names)))
        tables[split], scores[split] = table, metrics.pixel_scores(table)
        curves[split] = metrics.precision_recall(metrics.histogram(mask * 0.7, truth))
        for tile in names:
            path = root / "predictions" / name / split / "panels" / f"{tile}.png"
            write_png(path, drawing.panel(image, truth, mask))
    write_json(folder / "scores.json", scores)
    for file, parts in {"tiles.csv": tables, "pr.csv": curves}.items():
        table = pd.concat(parts, names=["split", None]).reset_index("split")
        table.to_csv(folder / file, index=False)
    record = trained_record(name, trained or RECIPES.get(name, RECIPES["better"]))
    write_json(folder / "training.json", record)
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
    # The last line shows how DVCLive writes a value that is not finite.
    live.write_text(f"step\tiou\n1\t{best / 2}\n2\t{best}\n3\t{best - 0.01}\n4\tNaN\n")


def add_results(
    root: Path, attempts: Mapping[str, tuple[int, Mapping[str, list[str]]]] = ATTEMPTS
) -> Path:
    """Write the files of some attempts, and the files that they share.

    By default these are two attempts that are final, and one for which test is sealed.
    """
    for name, (wrong, tiles) in attempts.items():
        add_attempt(root, name, wrong, tiles)
    write_json(root / "metrics/baselines.json", FLOOR)
    (root / "requirements.lock").write_text(LOCK)
    return root


def read_tiles(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "tiles.csv", dtype={"tile": str}, keep_default_na=False)


def rescore(root: Path, name: str, tiles: pd.DataFrame, **more: dict[str, float]) -> None:
    """Give an attempt another table of tiles, and the scores that follow from it.

    ``more`` holds further scores by split.
    """
    folder = root / "metrics/attempts" / name
    tiles.to_csv(folder / "tiles.csv", index=False)
    scores = {
        split: {**known_scores(tiles[tiles.split == split]), **more.get(split, {})}
        for split in dict.fromkeys(tiles.split)
    }
    write_json(folder / "scores.json", scores)


def set_missed(root: Path, name: str, split: str, missed: Sequence[int]) -> None:
    """Let an attempt miss the given number of 100 building pixels in each tile of a split."""
    tiles = read_tiles(root / "metrics/attempts" / name)
    tiles.loc[tiles.split == split, ["tp", "fp", "fn"]] = [[100 - n, 0, n] for n in missed]
    rescore(root, name, tiles)


class Pages(NamedTuple):
    """The pages of a leaderboard: report.html, report.md and leaderboard.md."""

    html: str
    text: str
    headline: str


def read(
    root: Path,
    names: Sequence[str] = tuple(ATTEMPTS),
    dataset: str = "city",
    seed_spread: Mapping[str, SeedSpread] | None = None,
) -> Leaderboard:
    """Read the leaderboard of attempts from their files, and write its tables."""
    board = read_leaderboard(
        names,
        dataset=dataset,
        patch_size=SIDE,
        results=root / "metrics/attempts",
        baselines=root / "metrics/baselines.json",
        seed_spread=seed_spread or {},
    )
    write_machine_files(board, metrics=root / "metrics", plots=root / "plots")
    return board


def headline(board: Leaderboard) -> str:
    """The text of leaderboard.md."""
    return markdown(headline_page(board, "../report.md"))


def build(root: Path, names: Sequence[str] = tuple(ATTEMPTS), dataset: str = "city") -> Pages:
    """Read the leaderboard, write its tables, and build its pages as the stage does."""
    board = read(root, names, dataset)
    report = report_page(board, predictions=root / "predictions", lock=root / "requirements.lock")
    return Pages(html(report), markdown(report), headline(board))


def read_board(root: Path) -> dict:
    """The content of leaderboard.json."""
    return read_json(root / "metrics/leaderboard.json")


def rows(text: str) -> list[list[str]]:
    """The cells of the Markdown tables of a text, with headers and without rules."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
