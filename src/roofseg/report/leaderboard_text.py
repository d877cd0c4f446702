"""The leaderboard as a page of Markdown: one table, and what to know to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from roofseg.metrics import SPLITS
from roofseg.pages.tables import markdown_table
from roofseg.report.attempts import Entry
from roofseg.report.comparisons import floor_iou, torn
from roofseg.results.disclaimers import SEALED, SYNTHETIC, SYNTHETIC_DATASETS, WITHOUT_SAM
from roofseg.results.intervals import DRAWS, EXACT_TILES, STATISTICS, Interval, of_tiles

# The table's columns, and what they are called. Scores are shown with their intervals; the two of
# whole tiles only where all attempts have them.
COLUMNS = {
    "rank": "#",
    "attempt": "model",
    "encoder": "encoder",
    "prior": "prior",
    "lr": "lr",
    "augmentation": "augmentation",
    "dropout": "dropout",
    "loss": "loss",
    "best_epoch": "best epoch",
    "val_iou": "val IoU",
    "val_f1": "val F1",
    "test_iou": "test IoU",
    "test_f1": "test F1",
    "val_full_tiles_iou": "val IoU, whole tiles",
    "test_full_tiles_iou": "test IoU, whole tiles",
    "looks": "looks",
    "minutes": "minutes",
    "trainable_parameters": "trainable parameters",
}
TEXT_COLUMNS = {"model", "encoder", "prior", "augmentation", "loss"}

# More of scores.json, on val, and what the second table calls it.
MEASURES = {
    "precision": "precision",
    "recall": "recall",
    "boundary_iou": "boundary IoU, 3 px",
    "boundary_iou_m": "boundary IoU, 1 m",
    "building_f1": "building F1",
    "ece": "ECE",
}
MEASURES_SAID = (
    "Precision and recall are pooled over pixels. Boundary IoU (Cheng et al. 2021) is that of the "
    "pixels within 3 px, or 1 m, of an edge; a metre is taken in whole pixels, so at 0.3 m per "
    "pixel the two are the same. Building F1 counts whole buildings, found where their IoU is "
    "above 0.5. Both are means over tiles. ECE, the expected calibration error over all pixels, is "
    "how far probabilities are from the share of pixels that are building; 0 is best."
)
FLATTERS = "The best epoch of each attempt was chosen by validation, so validation flatters."


def markdown(
    table: pd.DataFrame,
    order: Sequence[Entry],
    comparisons: pd.DataFrame,
    floor: Mapping[str, Any],
    dataset: str,
    patch_size: int,
) -> str:
    """The text of leaderboard.md.

    Args:
        table: that of `roofseg.report.leaderboard.score_table`.
        order: the attempts, the leader first.
        comparisons: those of `roofseg.report.comparisons.compare_with_leader`.
        floor: the scores of `roofseg.baselines`.
        dataset: its name.
        patch_size: side of a patch in pixels.
    """
    lines = [
        "# Leaderboard",
        "",
        "Ordered by validation IoU; test stands beside it. IoU and F1 are means over tiles, at "
        f"threshold 0.5; in brackets, their 95 % intervals over the tiles. {FLATTERS}",
        "",
        *markdown_table(_shown(table, order), TEXT_COLUMNS),
        "",
        *_notes(table, order, comparisons, floor, dataset, patch_size),
        "",
        "## More measures, on val",
        "",
        *_measures(order),
    ]
    return "\n".join(lines) + "\n"


def tile_counts(entries: Sequence[Entry]) -> dict[str, int | None]:
    """Number of tiles in val and test; None while no attempt has opened it."""
    return {
        split: max((len(entry.counts(split)) for entry in entries), default=0) or None
        for split in SPLITS
    }


def measures(entry: Entry, split: str) -> dict[str, Interval]:
    """Those of `MEASURES` that are known of an attempt, with their intervals.

    Values are those of scores.json; ECE is not made of tiles, and has no interval.
    """
    unknown = float("nan")
    rows = entry.tiles[entry.tiles.split == split]
    found = of_tiles(rows, [name for name in MEASURES if name in STATISTICS])
    return {
        name: Interval(value, found[name].low, found[name].high)
        if name in found
        else Interval(value, unknown, unknown)
        for name in MEASURES
        if (value := entry.scores[split].get(name)) is not None
    }


def above_floor(scores: Iterable[tuple[str, Interval]], floor: float) -> str:
    """Who is above the floor on val, and of whom that may be luck.

    Args:
        scores: the val IoU of each attempt, under its name.
        floor: the best val IoU of what needs no training.
    """
    below, within = [], []
    for name, found in scores:
        if not found.value > floor:
            below.append(name)
        elif found.low <= floor:
            within.append(name)
    text = f"Not above it: {', '.join(below)}." if below else "Every attempt is above it."
    if within:
        text += f" It lies within the interval of {', '.join(within)}: on other tiles of this kind "
        text += "they might not be above it." if len(within) > 1 else "it might not be above it."
    return text


def sign_flips(comparisons: pd.DataFrame, tiles: Mapping[str, int | None]) -> tuple[str, str]:
    """How the p-values of comparisons are made, and what none can be below.

    Args:
        comparisons: those of `roofseg.report.comparisons.compare_with_leader`, at least one.
        tiles: `tile_counts`.

    Returns:
        Two phrases, such as ``exact sign flips`` and ``0.031 on 6 tiles``.
    """
    floors = {tiles[row.split] or 0: row.floor for row in comparisons.itertuples()}
    kinds = f"exact sign flips up to {EXACT_TILES} tiles, {DRAWS:,} random ones beyond"
    if max(floors) <= EXACT_TILES:
        kinds = "exact sign flips"
    elif min(floors) > EXACT_TILES:
        kinds = f"{DRAWS:,} random sign flips"
    least = [f"{floor:.2g} on {n} tile{'s' if n != 1 else ''}" for n, floor in floors.items()]
    return kinds, " or ".join(least)


def _with_interval(found: Interval) -> str:
    """A score as text, with its interval where there is one: ``0.784 [0.69, 0.86]``."""
    bounds = "" if pd.isna(found.low) else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.3f}{bounds}"


def _score(row: Mapping[str, Any], name: str) -> Interval:
    return Interval(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))


def _shown(table: pd.DataFrame, order: Sequence[Entry]) -> pd.DataFrame:
    """The table's cells as text, under the names of `COLUMNS`."""
    shown = table[[name for name in COLUMNS if name in table]].astype(object)
    for name in shown:
        if name.endswith(("_iou", "_f1")):
            shown[name] = [
                SEALED if pd.isna(row[name]) else _with_interval(_score(row, name))
                for _, row in table.iterrows()
            ]
    for split in SPLITS:
        # Of the other standings, behind is what the order says, and the leader is first.
        marks = table[f"{split}_standing"].map({"tie": " tie", "ahead": " ahead"}).fillna("")
        shown[f"{split}_iou"] += marks
    shown["minutes"] = [f"{minutes:.1f}" for minutes in table.minutes]
    shown["looks"] = [f"**{looks}**" if looks > 1 else str(looks) for looks in table.looks]
    shown["lr"] = [f"{lr:g}" for lr in table.lr]
    shown["trainable_parameters"] = [f"{count / 1e6:.2f} M" for count in table.trainable_parameters]
    shown["prior"] = [
        "scratch (no SAM weights)" if entry.recipe.without_sam else entry.recipe.prior
        for entry in order
    ]
    return shown.rename(columns=COLUMNS)


def _notes(
    table: pd.DataFrame,
    order: Sequence[Entry],
    comparisons: pd.DataFrame,
    floor: Mapping[str, Any],
    dataset: str,
    patch_size: int,
) -> list[str]:
    tiles = tile_counts(order)
    scores = [(row["attempt"], _score(row, "val_iou")) for row in table.to_dict("records")]
    notes = [
        f"- **Floor** on val: {_floor(floor)}. {above_floor(scores, floor_iou(floor))}",
        f"- **Tiles**: dataset `{dataset}`, {tiles['val']} in val and "
        f"{tiles['test'] or 'none opened'} in test, one patch of {patch_size} x "
        f"{patch_size} px each.",
        f"- **Intervals** are of the percentile bootstrap: tiles drawn with replacement, {DRAWS:,} "
        "times. They say how far a score would go with other tiles of this kind, not with another "
        "seed; and for few tiles they are too narrow. A single tile has none.",
        *_ties(table, comparisons, tiles),
        "- **Costs**: [costs.md](costs.md) has what each attempt took to train and takes to map.",
    ]
    if "val_full_tiles_iou" in table:
        notes.append(
            "- **Whole tiles**: columns that say so score every pixel of the tiles, by blended "
            "windows as `roofseg predict` does; all others, the order, and ties are of the patches."
        )
    if any("test" not in entry.scores for entry in order):
        notes.append(
            f"- **{SEALED}**: the recipe is not final, so its test split was not opened. "
            "`roofseg finalize NAME`, commit params.yaml, `dvc repro`."
        )
    if several := [entry.attempt for entry in order if entry.looks > 1]:
        notes.append(
            f"- **Looks**: more than one recipe of {', '.join(several)} was scored on these test "
            "tiles, so its test figures are no longer those of tiles that nobody had looked at. "
            "metrics/attempts/NAME/test_looks.csv lists them."
        )
    if without_sam := [entry.attempt for entry in order if entry.recipe.without_sam]:
        notes.append(f"- **No SAM weights**: the encoder of {', '.join(without_sam)} {WITHOUT_SAM}")
    if dataset in SYNTHETIC_DATASETS:
        notes.append(f"- **Synthetic**: {SYNTHETIC}")
    return notes


def _ties(
    table: pd.DataFrame, comparisons: pd.DataFrame, tiles: Mapping[str, int | None]
) -> list[str]:
    """Who ties with the leader, what that means, and what the p-values can say."""
    if comparisons.empty:
        return []
    ties = [
        f"on {split}, {', '.join(here.attempt[here.tie]) or 'none'}"
        for split, here in comparisons.groupby("split", sort=False)
    ]
    flips, least = sign_flips(comparisons, tiles)
    notes = [
        f"- **Ties** with {table.attempt[0]}, the leader by val: {'; '.join(ties)}. A tie is an "
        "attempt whose 95 % paired interval of the difference in IoU to the leader contains 0: "
        "these tiles cannot tell which of the two is better.",
        "- **p-values** of these differences, with the intervals, are in "
        f"[comparisons.csv](comparisons.csv): by {flips}, two-sided, not corrected for the number "
        f"of comparisons. None can be below {least}.",
    ]
    doubtful = comparisons[torn(comparisons)]
    if not doubtful.empty:
        names = ", ".join(f"{row.attempt} on {row.split}" for row in doubtful.itertuples())
        notes[-1] += (
            f" Of {names} p is above 0.05, though the interval leaves out 0: that may be chance, "
            "since with few tiles such an interval is too narrow."
        )
    return notes


def _floor(floor: Mapping[str, Any]) -> str:
    constant, colour = floor["constant"], floor["colour_threshold"]
    sign = {"above": ">=", "below": "<"}[colour["direction"]]
    return (
        f"{constant['mask']}, IoU {constant['val']['iou']:.3f}, F1 {constant['val']['f1']:.3f}; "
        f"colour threshold ({colour['channel'].replace('_', ' ')} {sign} {colour['threshold']}, "
        f"fitted on train), IoU {colour['val']['iou']:.3f}, F1 {colour['val']['f1']:.3f}"
    )


def _measures(order: Sequence[Entry]) -> list[str]:
    """The second table: each of `MEASURES` that is known of some attempt."""
    scores = [measures(entry, "val") for entry in order]
    shown = pd.DataFrame({"model": [entry.attempt for entry in order]})
    for key, name in MEASURES.items():
        values = [score.get(key) for score in scores]
        if any(value is not None for value in values):
            shown[name] = ["" if value is None else _with_interval(value) for value in values]
    return [
        *markdown_table(shown, TEXT_COLUMNS),
        "",
        f"{MEASURES_SAID} metrics/attempts/NAME has them by tile, by size of building and by "
        "probability.",
    ]
