"""Sections of a page (`roofseg.pages.page`) that describe the studies in words and tables.

The section of a study takes ``scores`` (rows of `records.read_records`), ``summary``
(`tables.spread` by label and the key that the study varies), the table of its comparison
(`tables.gains`, `tables.pairs` or `tables.contrasts`), and ``picture``, its figure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from roofseg.core.images import Image
from roofseg.pages.page import (
    Block,
    Cell,
    Figure,
    Prose,
    Section,
    Table,
    data_uri,
    join_words,
    with_interval,
)
from roofseg.results.tables import counted, number
from roofseg.studies.declaration import Augmentations
from roofseg.studies.report.tables import agreement, per_run, ranks

WIDTH = 1400  # pixels of a figure: two for each pixel that a screen shows
TITLES = {
    "budget": "Data budget",
    "seeds": "Seeds",
    "augmentation": "Augmentation",
    "folds": "Cross-validation",
}

ATTEMPTS = ("label", "than", "one", "other")
"""The columns of `roofseg.studies.report.tables` that hold names of attempts."""


def page_table(
    rows: pd.DataFrame,
    caption: str,
    columns: Mapping[str, str],
    words: Collection[str] = ("attempt",),
    interval: str = "difference",
) -> Table:
    """A table for a page, with a row per row of a data frame.

    Names of attempts are shown as code, and floats with three decimals.

    Args:
        rows: the data frame.
        caption: the text above the table.
        columns: the column of ``rows`` under each heading.
        words: the headings of the columns that hold words, see `Table`.
        interval: the column of ``rows`` that is shown with its interval, the columns low and high.
    """

    def cell(row: Mapping[str, Any], key: str) -> Cell | str:
        value = row[key]
        if key == interval:
            return with_interval(value, row["low"], row["high"])
        if isinstance(value, float):
            return number(value)
        return Cell(str(value), code=key in ATTEMPTS and isinstance(value, str) and value != "")

    cells = [[cell(row, key) for key in columns.values()] for row in rows.to_dict("records")]
    return Table(caption, list(columns), cells, frozenset(words))


def page_figure(picture: Image, caption: str, alt: str) -> Figure:
    """A figure for a page, from (H, W, 3) uint8 RGB."""
    return Figure(caption, alt, source=data_uri(picture, WIDTH))


def budget_section(
    scores: pd.DataFrame, summary: pd.DataFrame, gains: pd.DataFrame, picture: Image
) -> Section:
    """The section on IoU against the number of training tiles."""
    lines = []
    for label, own in summary.groupby("label", sort=False):
        ordered = own.sort_values("tiles")
        first, last = ordered.iloc[0], ordered.iloc[-1]
        line = f"With {_tiles(first.tiles)} `{label}` reaches a val IoU of {_bold(first.val_iou)}"
        for gain in gains[(gains.label == label) & (gains.tiles == last.tiles)].itertuples():
            difference = with_interval(gain.difference, gain.low, gain.high)
            line += f", with {last.tiles} {_bold(last.val_iou)}: a difference of {difference}"
            line += f" ({gain.verdict or 'no verdict'})"
        lines.append(f"{line}.")
    drawn = (
        "Val IoU against the number of training tiles: a point per run, a line through the means "
        "over seeds, with bars from the worst seed to the best."
    )
    tables = [_spread(summary, "Val IoU by number of training tiles.", {"training tiles": "tiles"})]
    if len(gains):
        caption = "Gain of more tiles, paired by seed and val tile, and the verdict."
        columns = {"attempt": "label", "training tiles": "tiles", "minus": "than"}
        columns |= {"difference": "difference", "verdict": "verdict"}
        tables.append(page_table(gains, caption, columns, ("attempt", "verdict")))
    method = (
        "With one seed, a smaller set of tiles is a subset of a larger one; the seed also decides "
        "initial weights, draws and augmentation. Every run has the same number of steps, however "
        "few its tiles are."
    )
    return _section("budget", " ".join(lines), drawn, picture, tables, scores, gains, method)


def seeds_section(
    scores: pd.DataFrame, summary: pd.DataFrame, pairs: pd.DataFrame, picture: Image
) -> Section:
    """The section on the spread over seeds, ranks, and the share of seed noise in each gap."""
    tau, counts, seeds = agreement(scores), ranks(scores), scores.seed.nunique()
    text = (
        f"Over {seeds} seeds the val IoU of an attempt has a standard deviation of "
        f"{number(summary.sd.min())} to {number(summary.sd.max())}. "
    )
    if tau == tau:
        text += (
            f"Kendall's tau between the rankings of two seeds is **{number(tau, 2)}** on average: "
            "1 means the same ranking every time, 0 means chance."
        )
    else:
        text += "There are no rankings to compare: there is one attempt, or all are equal."
    drawn = (
        "Val IoU of every seed, and the mean lead of one attempt over another with its interval "
        "over seeds."
    )
    tables = [
        _spread(summary, "Val IoU over seeds.", {}),
        page_table(
            counts.rename_axis("label").reset_index(),
            f"Ranks: in how many of {seeds} seeds an attempt came first, second and so on.",
            {"attempt": "label", **{f"rank {rank}": rank for rank in counts}},
        ),
    ]
    if len(pairs):
        caption = (
            "Every two attempts, the better one first: its lead over the other, and the verdict."
        )
        columns = {"attempt": "one", "minus": "other", "difference": "difference"}
        columns |= {"verdict": "verdict", "sd": "sd", "ahead in": "ahead", "seed noise": "noise"}
        shown = pairs.assign(
            ahead=[f"{row.ahead} of {row.seeds}" for row in pairs.itertuples()],
            noise=pairs.noise.map(lambda share: f"{100 * share:.0f} %"),
        )
        tables.append(page_table(shown, caption, columns, ("attempt", "minus", "verdict")))
    noise = (
        "Seed noise is the share of noise in the gap of a single seed, sd² / mean(difference²). At "
        "0 % every seed shows the same gap; at 100 % one seed's gap says nothing about others. "
        "Differences are judged by Student's t over seeds, on these val tiles."
    )
    return _section("seeds", text, drawn, picture, tables, scores, pairs, noise)


def augmentation_section(
    scores: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    picture: Image,
    study: Augmentations,
    differences: Mapping[str, Sequence[str]],
) -> Section:
    """The section that compares presets and says whether a frozen encoder prefers milder ones.

    ``differences`` are `Augmentations.other_differences` of the study.
    """
    lines = []
    for row in contrasts[contrasts.than != ""].itertuples():
        verdict = {
            "yes": "**yes**",
            "no": "**no**: it prefers it less",
            "open": "**open**: the difference may be chance",
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
    mild, strong = join_words(study.mild), join_words(study.strong)
    caption = f"Preference: IoU under {mild} minus that under {strong}."
    columns = {"attempt": "label", "minus that of": "than"}
    columns |= {"difference": "difference", "answer": "answer"}
    shown = contrasts.assign(answer=contrasts.answer.where(contrasts.than != "", ""))
    drawn = (
        "Val IoU under each preset, from mild to strong, and the preference for mild presets with "
        "its interval."
    )
    tables = [
        page_table(shown, caption, columns, ("attempt", "minus that of", "answer")),
        _spread(summary, "Val IoU by augmentation.", {"augmentation": "augmentation"}),
    ]
    return _section("augmentation", " ".join(lines), drawn, picture, tables, scores, contrasts)


def unfinished_section(name: str, finished: int, runs: int) -> Section:
    """The section of a study of which only ``finished`` of its ``runs`` have a record."""
    text = (
        f"Not finished: {finished} of {runs} runs are done. `roofseg studies {name}` runs the "
        "others."
    )
    return Section(TITLES[name], [Prose(text)])


def _section(
    name: str,
    text: str,
    drawn: str,
    picture: Image,
    tables: Sequence[Table],
    scores: pd.DataFrame,
    compared: pd.DataFrame,
    method: str = "",
) -> Section:
    """Put a section together: text, figure with the caption ``drawn``, tables, method, failures."""
    alt = f"{TITLES[name]}: the numbers are in the tables of this section."
    method = f"{method} {_size(scores)} {_intervals(scores)}".lstrip()
    if len(compared):
        method += (
            " Intervals and verdicts of differences are corrected for the number of differences "
            "in their table (Holm's method); an interval that contains 0 is a tie."
        )
    figure = page_figure(picture, drawn, alt)
    blocks: list[Block] = [Prose(text), figure, *tables, Prose(method), *_failures(scores)]
    return Section(TITLES[name], blocks)


def _spread(summary: pd.DataFrame, caption: str, by: Mapping[str, str]) -> Table:
    """The table of `tables.spread`; ``by`` maps headings to the columns of the groups."""
    columns = {"attempt": "label", **by, "seeds": "seeds", "val IoU": "val_iou", "sd": "sd"}
    columns |= {"worst seed": "min", "best seed": "max"}
    return page_table(summary, caption, columns, ("attempt", "augmentation"), interval="val_iou")


def _size(scores: pd.DataFrame) -> str:
    runs = len(per_run(scores))
    sizes = sorted(set(zip(scores.epochs, scores.draws, strict=True)))
    lengths = join_words(
        [f"{counted(epochs, 'epoch')} of {counted(draws, 'draw')}" for epochs, draws in sizes]
    )
    return (
        f"{counted(runs, 'run')} of at most {lengths}, each scored on the same "
        f"{counted(scores.tile.nunique(), 'val tile')} with the weights of its best epoch there; "
        "test is never read."
    )


def _intervals(scores: pd.DataFrame) -> str:
    if scores.seed.nunique() == 1:
        return (
            "Intervals of an IoU are at 95 %, for other val tiles; a single seed cannot cover "
            "other seeds."
        )
    return (
        "Intervals of an IoU are at 95 %, for other val tiles and other seeds, since both are "
        "samples."
    )


def _failures(scores: pd.DataFrame) -> list[Prose]:
    runs = per_run(scores)
    return [
        Prose(
            f"**Ended early**: `{row.label}`, {_tiles(row.tiles)}, {row.augmentation}, seed "
            f"{row.seed}: {row.failure} Its score is that of its best epoch before that."
        )
        for row in runs[runs.failure != ""].itertuples()
    ]


def _tiles(count: int) -> str:
    return counted(count, "training tile")


def _bold(value: float) -> str:
    return f"**{number(value)}**"
