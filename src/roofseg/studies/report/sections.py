"""Sections of a page (`roofseg.pages.page`) that describe the studies in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from roofseg.pages.page import (
    Block,
    Cell,
    Prose,
    Section,
    Table,
    join_words,
    number,
    with_interval,
)
from roofseg.studies.report.tables import agreement, per_run, ranks


def budget_section(scores: pd.DataFrame, summary: pd.DataFrame, gains: pd.DataFrame) -> Section:
    """The section on IoU against the number of training tiles.

    Args:
        scores: rows of `records.read_records`.
        summary: `tables.spread` by label and tiles.
        gains: `tables.gains`.
    """
    lines = []
    for label, own in summary.groupby("label", sort=False):
        ordered = own.sort_values("tiles")
        first, last = ordered.iloc[0], ordered.iloc[-1]
        line = f"With {_tiles(first.tiles)} `{label}` reaches a val IoU of {_bold(first.val_iou)}"
        for gain in gains[(gains.label == label) & (gains.tiles == last.tiles)].itertuples():
            difference = with_interval(gain.difference, gain.low, gain.high)
            line += f", with {last.tiles} {_bold(last.val_iou)}: a difference of {difference}"
        lines.append(f"{line}.")
    method = (
        "With one seed, a smaller set of tiles is a subset of a larger one; the seed also decides "
        "initial weights, draws and augmentation. Every run has the same number of steps, however "
        "few its tiles are."
    )
    blocks: list[Block] = [
        Prose(" ".join(lines)),
        _spread(summary, "Val IoU by number of training tiles.", {"tiles": "training tiles"}),
    ]
    if len(gains):
        blocks.append(_gains(gains))
    blocks += [
        Prose(f"{method} {_size(scores)} {_intervals(scores)}"),
        *_failures(scores),
    ]
    return Section("Data budget", blocks)


def seeds_section(scores: pd.DataFrame, summary: pd.DataFrame, pairs: pd.DataFrame) -> Section:
    """The section on the spread over seeds, ranks, and the share of seed noise in each gap.

    Args:
        scores: rows of `records.read_records`.
        summary: `tables.spread` by label.
        pairs: `tables.pairs`.
    """
    tau = agreement(scores)
    counts = ranks(scores)
    seeds = scores.seed.nunique()
    blocks: list[Block] = [
        Prose(
            f"Over {seeds} seeds the val IoU of an attempt has a standard deviation of "
            f"{number(summary.sd.min())} to {number(summary.sd.max())}. "
            + (
                f"Kendall's tau between the rankings of two seeds is **{number(tau, 2)}** on "
                "average: 1 means the same ranking every time, 0 means chance."
                if tau == tau
                else "There are no rankings to compare: there is one attempt, or all are equal."
            )
        ),
        _spread(summary, "Val IoU over seeds.", {}),
        Table(
            caption=f"Ranks: in how many of {seeds} seeds an attempt came first, second and so on.",
            header=["attempt", *(f"rank {rank}" for rank in counts)],
            rows=[
                [Cell(str(label), code=True), *(str(count) for count in row)]
                for label, row in zip(counts.index, counts.to_numpy(), strict=True)
            ],
            words=frozenset({"attempt"}),
        ),
    ]
    if len(pairs):
        blocks.append(_pairs(pairs))
    noise = (
        "Seed noise is its share in the gap of a single seed, sd² / mean(difference²): at 0 % "
        "every seed shows the same gap; at 100 % the gap of one seed says nothing about others. "
        "Intervals of differences are Student's t over seeds, on these val tiles; they are not "
        "corrected for the number of pairs."
    )
    blocks += [Prose(f"{noise} {_size(scores)} {_intervals(scores)}"), *_failures(scores)]
    return Section("Seeds", blocks)


def augmentation_section(
    scores: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    *,
    mild: Sequence[str],
    strong: Sequence[str],
    differences: Mapping[str, Sequence[str]],
) -> Section:
    """The section that compares presets and says whether a frozen encoder prefers milder ones.

    Args:
        scores: rows of `records.read_records`.
        summary: `tables.spread` by label and augmentation.
        contrasts: `tables.contrasts`, of presets ``mild`` and ``strong``.
        differences: by label of a frozen attempt, the keys other than those of freezing in which
            its recipe differs from that of the unfrozen one.
    """
    lines = []
    for row in contrasts[contrasts.than != ""].itertuples():
        verdict = {
            "yes": "**yes**: the interval lies above 0",
            "no": "**no**: the interval lies below 0",
            "open": "**open**: the interval includes 0",
        }[str(row.answer)]
        lines.append(
            f"Does `{row.label}` (frozen) prefer mild augmentation more than `{row.than}` does? "
            f"{verdict}."
        )
        if keys := differences.get(str(row.label)):
            lines.append(
                f"They also differ in {join_words(keys)}, so a difference would not be due to "
                "freezing alone."
            )
        if "no SAM weights" in str(row.label):
            lines.append(
                "This answer is about a random frozen ViT; for SAM the question stays open."
            )
    blocks: list[Block] = [
        Prose(" ".join(lines)),
        Table(
            caption=f"Preference: IoU under {join_words(mild)} minus that under "
            f"{join_words(strong)}.",
            header=["attempt", "minus that of", "difference", "answer"],
            rows=[
                [
                    Cell(str(row.label), code=True),
                    Cell(str(row.than), code=True) if row.than else "",
                    with_interval(row.difference, row.low, row.high),
                    str(row.answer) if row.than else "",
                ]
                for row in contrasts.itertuples()
            ],
            words=frozenset({"attempt", "minus that of", "answer"}),
        ),
        _spread(summary, "Val IoU by augmentation.", {"augmentation": "augmentation"}),
        Prose(f"{_size(scores)} {_intervals(scores)}"),
        *_failures(scores),
    ]
    return Section("Augmentation", blocks)


def _spread(summary: pd.DataFrame, caption: str, by: dict[str, str]) -> Table:
    return Table(
        caption=caption,
        header=["attempt", *by.values(), "seeds", "val IoU", "sd", "worst seed", "best seed"],
        rows=[
            [
                Cell(str(row["label"]), code=True),
                *(str(row[key]) for key in by),
                str(row["seeds"]),
                with_interval(row["val_iou"], row["low"], row["high"]),
                *(number(row[key]) for key in ("sd", "min", "max")),
            ]
            for row in summary.to_dict("records")
        ],
        words=frozenset({"attempt", "augmentation"}),
    )


def _gains(gains: pd.DataFrame) -> Table:
    return Table(
        caption="Gain of more tiles, paired by seed and val tile.",
        header=["attempt", "training tiles", "minus", "difference"],
        rows=[
            [
                Cell(str(row.label), code=True),
                *(str(row.tiles), str(row.than)),
                with_interval(row.difference, row.low, row.high),
            ]
            for row in gains.itertuples()
        ],
        words=frozenset({"attempt"}),
    )


def _pairs(pairs: pd.DataFrame) -> Table:
    return Table(
        caption="Every two attempts, the better one first: its lead over the other.",
        header=["attempt", "minus", "difference", "sd", "ahead in", "seed noise"],
        rows=[
            [
                Cell(str(row.one), code=True),
                Cell(str(row.other), code=True),
                with_interval(row.difference, row.low, row.high),
                number(row.sd),
                f"{row.ahead} of {row.seeds}",
                f"{100 * row.noise:.0f} %",
            ]
            for row in pairs.itertuples()
        ],
        words=frozenset({"attempt", "minus"}),
    )


def _size(scores: pd.DataFrame) -> str:
    runs = len(per_run(scores))
    sizes = sorted(set(zip(scores.epochs, scores.draws, strict=True)))
    lengths = join_words([f"{epochs} epochs of {draws} draws" for epochs, draws in sizes])
    return (
        f"{runs} runs of at most {lengths}, each scored on the same {scores.tile.nunique()} val "
        "tiles with the weights of its best epoch there; test is never read."
    )


def _intervals(scores: pd.DataFrame) -> str:
    if scores.seed.nunique() == 1:
        return "Intervals are at 95 %, for other val tiles; a single seed cannot cover other seeds."
    return (
        "Intervals of an IoU are at 95 %, for other val tiles and other seeds, since both are "
        "samples. Where two or three seeds differ much, the intervals are wide."
    )


def _failures(scores: pd.DataFrame) -> list[Block]:
    runs = per_run(scores)
    return [
        Prose(
            f"**Ended early**: `{row.label}`, {_tiles(row.tiles)}, {row.augmentation}, seed "
            f"{row.seed}: {row.failure} Its score is that of its best epoch before that."
        )
        for row in runs[runs.failure != ""].itertuples()
    ]


def _tiles(count: int) -> str:
    return f"{count} training tile{'s' if count > 1 else ''}"


def _bold(value: float) -> str:
    return f"**{number(value)}**"
