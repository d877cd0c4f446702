"""The report's sections on who is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import pandas as pd

from roofseg.core.images import read_image
from roofseg.drawing import thirds
from roofseg.metrics import SPLITS
from roofseg.pages.page import (
    Cell,
    Figure,
    Grid,
    Picture,
    Prose,
    Section,
    Table,
    data_uri,
    number,
    with_interval,
)
from roofseg.report import charts
from roofseg.report.cells import joined, name_cell
from roofseg.report.comparisons import torn
from roofseg.report.leaderboard_plots import shown_tiles
from roofseg.report.leaderboard_text import FLATTERS, above_floor, sign_flips
from roofseg.report.results import Attempt, Results
from roofseg.results.disclaimers import SEALED
from roofseg.results.intervals import DRAWS

CELL = 224  # pixels of a tile on the page: what its patch has, or half of it and less

INTERVAL = (
    "In brackets: 95 % interval, by bootstrap over the tiles "
    f"({DRAWS:,} draws). It says how far a score would go with other tiles of this kind, not with "
    "another seed; with few tiles it is too narrow."
)


def result(results: Results) -> Section:
    rows: list[list[Cell | str]] = [
        [
            name_cell(each),
            *(
                cell
                for split in results.splits
                for cell in (
                    _score(each, f"{split}_iou", split),
                    _mark(each, split),
                    _score(each, f"{split}_f1", split),
                )
            ),
            *(_score(each, key, key.partition("_")[0]) for key in _whole(results)),
        ]
        for each in results.attempts
    ]
    header = [
        "attempt",
        *(name for split in results.splits for name in (f"{split} IoU", "", f"{split} F1")),
        *(_whole(results).values()),
    ]
    caption = (
        "Ordered by validation IoU. IoU and F1 are means over tiles, at threshold 0.5. "
        f"{FLATTERS} {INTERVAL} "
        f"**{SEALED}**: the recipe is not final, so its test split was not opened."
    )
    if "test" in results.splits and all(each.opened("test") for each in results.attempts):
        caption = caption[: caption.index(f" **{SEALED}**")]
    chart = charts.intervals(
        [
            charts.Score(
                each.label,
                each.index,
                each.score("val_iou"),
                each.score("test_iou") if each.opened("test") else None,
                _note(each),
            )
            for each in results.attempts
        ],
        results.floor_iou,
    )
    return Section(
        "Result",
        [
            Prose(_verdict(results)),
            Table(caption, header, rows, frozenset({"attempt", ""})),
            Figure(
                "IoU of each attempt with its 95 % interval: validation filled, test hollow. "
                "The dashed line is the floor on validation. Overlapping intervals do not make a "
                "tie, nor do separate ones rule it out: attempts are compared tile by tile, below.",
                "IoU by attempt. "
                + " ".join(
                    f"{each.label}: " + ", ".join(_said(each, split) for split in results.splits)
                    for each in results.attempts
                ),
                chart,
            ),
            Prose(_floor(results)),
        ],
    )


def _verdict(results: Results) -> str:
    """Who leads on val, and how that stands on test, which chose nothing."""
    leader = results.leader
    found = _score(leader, "val_iou", "val")
    text = f"**{leader.label}** leads on validation with an IoU of {found}."
    table = results.compared("val")
    if not table.empty:
        if ties := _standing(results, "val", "tie"):
            text += f" {_verb(ties, 'tie')} with it: these tiles cannot tell them apart."
        else:
            text += " No other attempt ties with it, by the interval of its difference."
        unsure = set(table.index[torn(table)])
        if doubtful := [each.label for each in results.attempts if each.name in unsure]:
            text += (
                " But with few tiles such an interval is too narrow, and the test of sign flips "
                f"does not rule out chance for {joined(doubtful)}."
            )
    if leader.opened("test"):
        text += f" On test its IoU is {_score(leader, 'test_iou', 'test')}"
        if ahead := _standing(results, "test", "ahead"):
            text += f"; {_verb(ahead, 'score')} higher there"
        if ties := _standing(results, "test", "tie"):
            text += f"; {_verb(ties, 'tie')} with it"
        text += "."
    return text


def _standing(results: Results, split: str, standing: str) -> list[str]:
    return [each.label for each in results.attempts if each.standing(split) == standing]


def _verb(names: Sequence[str], verb: str) -> str:
    return f"{joined(names)} {verb}{'s' if len(names) == 1 else ''}"


def _floor(results: Results) -> str:
    constant, colour = results.floor["constant"], results.floor["colour_threshold"]
    sign = {"above": "≥", "below": "<"}[colour["direction"]]
    scores = [(f"**{each.label}**", each.score("val_iou")) for each in results.attempts]
    return (
        f"The floor, on validation: {constant['mask']}, IoU {number(constant['val']['iou'])}; "
        f"a colour threshold fitted on train ({colour['channel'].replace('_', ' ')} {sign} "
        f"{colour['threshold']}), IoU {number(colour['val']['iou'])}. "
        f"{above_floor(scores, results.floor_iou)}"
    )


def against_leader(results: Results) -> Section:
    tables = {split: results.compared(split) for split in results.splits}
    tables = {split: table for split, table in tables.items() if not table.empty}
    if not tables:
        return Section("Against the leader", [])

    def cells(attempt: Attempt, split: str) -> list[Cell | str]:
        if attempt.name not in tables[split].index:
            return [SEALED, "", ""]
        row = tables[split].loc[attempt.name]
        return [
            _signed(row.difference, row.low, row.high),
            f"{row.p_value:.3f}" if row.p_value >= 0.01 else f"{row.p_value:.1g}",
            attempt.standing(split),
        ]

    rows: list[list[Cell | str]] = [
        [
            name_cell(each),
            *(cell for split in tables for cell in cells(each, split)),
        ]
        for each in results.attempts[1:]
    ]
    header = ["attempt", *(name for split in tables for name in (f"{split} IoU", "p", " "))]
    flips, least = sign_flips(results.table("comparisons.csv"), results.tile_counts)
    return Section(
        "Against the leader",
        [
            Table(
                f"Difference in IoU to `{results.leader.name}`, mean over the same tiles, with its "
                "paired 95 % bootstrap interval. A **tie** is an interval that contains 0. p is "
                f"by {flips} (the two results of a tile exchanged), two-sided, and not corrected "
                f"for the number of comparisons; it cannot be below {least}. The two can disagree: "
                "with few tiles the interval is too narrow, and p cannot be small.",
                header,
                rows,
                frozenset({"attempt", " "}),
            )
        ],
    )


def side_by_side(results: Results) -> Section:
    return Section("Tile by tile", [_grid(results, split) for split in results.splits])


def _grid(results: Results, split: str) -> Grid:
    shown = [each for each in results.attempts if each.opened(split)]
    ious = pd.DataFrame(
        {each.name: each.tiles[each.tiles.split == split].set_index("tile").iou for each in shown}
    )
    chosen = shown_tiles(ious)
    rows: list[tuple[str, list[Picture]]] = []
    for tile in chosen:
        pictures: list[Picture] = []
        for each in shown:
            path = results.predictions / each.name / split / "panels" / f"{tile}.png"
            image, truth, judged = thirds(read_image(path))
            if not pictures:
                pictures.append(Picture(data_uri(image, CELL), f"{tile}: the image"))
                pictures.append(
                    Picture(data_uri(truth, CELL), f"{tile}: the image with its true footprints")
                )
            iou = number(float(ious.loc[tile, each.name]))
            pictures.append(
                Picture(data_uri(judged, CELL), f"{tile}: {each.label}, IoU {iou}", iou)
            )
        rows.append((tile, pictures))
    which = (
        f"all {len(ious)} tiles"
        if len(chosen) == len(ious)
        else f"{len(chosen)} of {len(ious)} tiles, at even steps from the worst mean IoU to the "
        "best"
    )
    columns = [
        Cell("image"),
        Cell("truth"),
        *(Cell(each.label, number(each.score(f"{split}_iou").value)) for each in shown),
    ]
    sealed = [each.label for each in results.attempts if not each.opened(split)]
    return Grid(
        f"{SPLITS[split].capitalize()}: {which}. Green was found, blue missed, red is a false "
        "alarm; the number is the tile's IoU."
        + (f" Sealed, not shown: {joined(sealed)}." if sealed else ""),
        columns,
        rows,
    )


def _mark(attempt: Attempt, split: str) -> str:
    """What is to be said of an attempt's standing; that it is behind, the order says."""
    standing = attempt.standing(split)
    return "" if standing in ("behind", SEALED) else standing


def _note(attempt: Attempt) -> str:
    """Its mark on val, and that on test where it is another: ``tie on test``."""
    val, test = (_mark(attempt, split) for split in SPLITS)
    return ", ".join(filter(None, [val, f"{test} on test" if test != val and test else ""]))


def _score(attempt: Attempt, key: str, split: str) -> Cell | str:
    if not attempt.opened(split):
        return SEALED
    return with_interval(*astuple(attempt.score(key)))


def _said(attempt: Attempt, split: str) -> str:
    score = _score(attempt, f"{split}_iou", split)
    return f"{SPLITS[split]} {score}"


def _signed(value: float, low: float, high: float) -> Cell:
    cell = with_interval(value, low, high)
    return Cell(f"+{cell.text}" if value > 0 else cell.text, cell.detail)


def _whole(results: Results) -> dict[str, str]:
    """Columns of whole tiles, where all attempts were scored on them."""
    return {
        f"{split}_full_tiles_iou": f"{split} IoU, whole tiles"
        for split in results.splits
        if all(f"{split}_full_tiles_iou" in each.row for each in results.attempts)
    }
