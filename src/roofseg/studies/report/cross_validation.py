"""Tables and text of the study of folds: out-of-fold scores of all tiles of train and val.

``scores`` are rows of `records.read_records`: each tile once for each attempt, scored by a model
that was trained without it. The fold that chooses a model's epoch counts as training data, as the
model depends on it; so a run has (k - 1) / k of the tiles, as `roofseg.results.folds` assumes.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from roofseg.core.images import Image
from roofseg.pages.page import Block, Prose, Section
from roofseg.results.folds import compare_pairs_of_folds, corrected_estimate, fold_ranks
from roofseg.results.intervals import score_interval
from roofseg.results.tables import counted, number
from roofseg.results.verdicts import DECIDED, VERDICT, compare_pairs
from roofseg.studies.folds import FEW_FOLDS
from roofseg.studies.report.sections import TITLES, page_figure, page_table

ALONE = ["difference", "low", "high", "verdict"]


class FoldTables(NamedTuple):
    """The tables of the study, one CSV file each.

    Attributes:
        tiles: a row per attempt and tile: label, tile, split (train or val), fold, iou and f1.
        runs: a row per attempt and fold: label, fold, tiles, iou and f1 (means over its tiles),
            rank among the attempts (1 is best), best_epoch and failure.
        summary: a row per attempt: label, tiles, iou with the ends low and high of its interval,
            f1, min and max (of the folds' mean IoU), and first (the folds in which it is best).
        pairs: a row per two attempts, the better one first: one, other, `VERDICT` on all tiles,
            ahead (the folds in which ``one`` is better), and val_difference, val_low, val_high and
            val_verdict, which are what the tiles of val alone say.
        single_folds: a row per fold and pair: fold, one, other, and `VERDICT` on its tiles alone.
    """

    tiles: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    pairs: pd.DataFrame
    single_folds: pd.DataFrame


def fold_tables(scores: pd.DataFrame) -> FoldTables:
    """Compare attempts by their out-of-fold scores; pairs are judged by `roofseg.results.folds`."""
    tiles = scores[["label", "tile", "split", "fold", "iou", "f1"]].reset_index(drop=True)
    wide = tiles.pivot(index="tile", columns="label", values="iou")
    wide = wide[wide.mean().sort_values(kind="stable").index]  # the best last: pairs begin with it
    fold_of = tiles.drop_duplicates("tile").set_index("tile").fold
    ranks = fold_ranks(wide, fold_of).rename_axis("fold").stack().rename("rank").reset_index()

    keys = ["label", "fold", "best_epoch", "failure"]
    runs = scores.groupby(keys, sort=False).agg(
        tiles=("tile", "size"), iou=("iou", "mean"), f1=("f1", "mean")
    )
    runs = runs.reset_index().merge(ranks, on=["label", "fold"])
    runs = runs[["label", "fold", "tiles", "iou", "f1", "rank", "best_epoch", "failure"]]

    summary = runs.groupby("label", sort=False).iou.agg(["min", "max"]).reset_index()
    means = tiles.groupby("label", sort=False).f1.agg(tiles="size", f1="mean").reset_index()
    intervals = [
        score_interval(corrected_estimate(own.iou, own.fold))
        for _, own in tiles.groupby("label", sort=False)
    ]
    summary = means.merge(summary, on="label").assign(
        iou=[interval.value for interval in intervals],
        low=[interval.low for interval in intervals],
        high=[interval.high for interval in intervals],
        first=[int((runs[runs.label == label]["rank"] == 1).sum()) for label in means.label],
    )
    summary = summary[["label", "tiles", "iou", "low", "high", "f1", "min", "max", "first"]]

    pairs = _named(compare_pairs_of_folds(wide, fold_of))
    by_fold = wide.groupby(fold_of).mean()
    pairs["ahead"] = [
        int((by_fold[one] > by_fold[other]).sum())
        for one, other in zip(pairs.one, pairs.other, strict=True)
    ]
    of_val = tiles[tiles.split == "val"].tile.unique()
    alone = _named(compare_pairs(wide.loc[of_val]))[ALONE].add_prefix("val_")
    single = [_named(compare_pairs(own)).assign(fold=fold) for fold, own in wide.groupby(fold_of)]
    single_folds = pd.concat(single)[["fold", "one", "other", *VERDICT]].reset_index(drop=True)
    return FoldTables(tiles, runs, summary, pairs.join(alone), single_folds)


def _named(compared: pd.DataFrame) -> pd.DataFrame:
    """The pairs of `compare_pairs` from columns in ascending order: the best attempt first."""
    renamed = compared.rename(columns={"attempt": "one", "than": "other"}).iloc[::-1]
    place = {name: at for at, name in enumerate(renamed.one.unique())}
    in_order = renamed.one.map(place).sort_values(kind="stable").index
    return renamed.loc[in_order].reset_index(drop=True)


def folds_section(scores: pd.DataFrame, found: FoldTables, picture: Image) -> Section:
    """The section on cross-validation; ``picture`` is the figure of the study."""
    summary, pairs, runs = found.summary, found.pairs, found.runs
    folds, tiles = runs.fold.nunique(), found.tiles.tile.nunique()
    best = summary.loc[summary.iou.idxmax()]
    lines = [
        f"Every one of the {tiles} tiles of train and val is scored once, by a model that was "
        f"trained without it. `{best.label}` has the highest mean IoU, **{number(best.iou)}**, and "
        f"is first in {best['first']} of {folds} folds."
    ]
    if len(pairs):
        lines += [_decided(pairs), _of_val(found), _of_single_folds(found)]
    drawn = (
        "The mean IoU of each attempt on each fold, those of one fold joined. Below, the "
        "difference of every two attempts with its interval over all tiles, that of the tiles of "
        "val alone in grey (cut off at the edge), and a small dot per fold."
    )
    headings = {"attempt": "label", "tiles": "tiles", "IoU": "iou", "F1": "f1"}
    headings |= {"worst fold": "min", "best fold": "max", "first in": "first"}
    caption = "Out-of-fold scores: means over all tiles, and over the tiles of single folds."
    blocks: list[Block] = [
        Prose(" ".join(lines)),
        page_figure(picture, drawn, f"{TITLES['folds']}: the numbers are in the tables."),
        page_table(summary, caption, headings, interval="iou"),
        page_table(
            runs.pivot(index="label", columns="fold", values="rank")
            .loc[summary.label]
            .reset_index(),
            "Ranks: the place of each attempt in each fold.",
            {"attempt": "label", **{f"fold {fold}": fold for fold in sorted(runs.fold.unique())}},
        ),
    ]
    if len(pairs):
        words = ("attempt", "minus", "verdict", "val alone")
        columns = {"attempt": "one", "minus": "other", "difference": "difference"}
        columns |= {"verdict": "verdict", "ahead in": "ahead_in", "val alone": "val_verdict"}
        shown = pairs.assign(ahead_in=[f"{ahead} of {folds}" for ahead in pairs.ahead])
        caption = "Every two attempts, the better one first, and what the val tiles alone say."
        blocks.append(page_table(shown, caption, columns, words))
    blocks.append(Prose(_method(scores, folds)))
    for run in runs[runs.failure != ""].itertuples():
        text = f"**Ended early**: `{run.label}`, fold {run.fold}: {run.failure}"
        blocks.append(Prose(f"{text} Its score is that of its best epoch before that."))
    return Section(TITLES["folds"], blocks)


def _decided(pairs: pd.DataFrame) -> str:
    decided = int(pairs.verdict.isin(DECIDED).sum())
    return (
        f"**{decided}** of {counted(len(pairs), 'pair')} of attempts "
        f"{'differs' if decided == 1 else 'differ'} by more than chance."
    )


def _of_val(found: FoldTables) -> str:
    """What the same scores say about the tiles of val alone."""
    pairs, tiles = found.pairs, found.tiles
    count = tiles[tiles.split == "val"].tile.nunique()
    decided = int(pairs.val_verdict.isin(DECIDED).sum())
    return (
        f"The {counted(count, 'tile')} of val alone would have decided {decided} of them"
        f"{_agreement(pairs.val_verdict, pairs)}."
    )


def _of_single_folds(found: FoldTables) -> str:
    """What a study of each fold's tiles alone would have said."""
    single = found.single_folds
    pairs = single[["one", "other"]].merge(found.pairs, on=["one", "other"])
    opposite = int((single.difference * pairs.difference < 0).sum())
    return (
        f"A study of one fold's tiles would have decided {int(single.verdict.isin(DECIDED).sum())} "
        f"of {counted(len(single), 'comparison')}{_agreement(single.verdict, pairs)}. In "
        f"{opposite or 'none'} of them the attempt that is worse on all tiles had the higher mean."
    )


def _agreement(verdicts: pd.Series, pairs: pd.DataFrame) -> str:
    """How many verdicts other than ties are those of all tiles, as the end of a clause."""
    decided = verdicts.isin(DECIDED)
    if not decided.any():
        return ""
    same = int((decided & (verdicts.to_numpy() == pairs.verdict.to_numpy())).sum())
    return f", {same} of these as all tiles do"


def _method(scores: pd.DataFrame, folds: int) -> str:
    sizes = sorted(set(zip(scores.epochs, scores.draws, strict=True)))
    lengths = " or ".join(
        f"{counted(epochs, 'epoch')} of {counted(draws, 'draw')}" for epochs, draws in sizes
    )
    few = (
        f" With fewer than {FEW_FOLDS} folds they are so wide that few pairs are told apart."
        if folds < FEW_FOLDS
        else ""
    )
    return (
        f"Each run trains on {folds - 2} of {folds} folds for at most {lengths}, chooses its best "
        "epoch on the fold after the one that it is scored on, and never sees that one; test is "
        f"never read. {_neighbours(scores)} The models of two folds share training "
        "tiles, so the intervals are wider than those of independent scores (Nadeau and Bengio "
        f"2003); they do not cover other seeds.{few} Verdicts are corrected for the number of "
        "pairs (Holm's method). Verdicts of val alone and of single folds are those of the paired "
        "t test over their tiles."
    )


def _neighbours(scores: pd.DataFrame) -> str:
    """Which neighbours are in one fold."""
    division = scores.iloc[0]
    said = "Neighbouring tiles are in one fold"
    if not pd.isna(division.side):
        said = (
            f"The ground is divided into squares of {division.side:g} m, and the tiles of a square "
            f"are in one fold; {division.touching} of {scores.tile.nunique()} tiles touch a tile "
            "of another fold, so scores may be too high"
        )
    if division.unplaced:
        bare = counted(int(division.unplaced), "tile")
        said += f"; nothing tells the neighbours of {bare} without georeference"
    return f"{said}."
