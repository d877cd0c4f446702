"""The report's sections on who is better, and how sure that is."""

from __future__ import annotations

import pandas as pd

from roofseg import charts
from roofseg.caveats import SEALED
from roofseg.figures import thirds
from roofseg.files import read_image
from roofseg.intervals import CONFIDENCE, DRAWS, EXACT_TILES
from roofseg.leaderboard_plots import shown_tiles
from roofseg.pages import (
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
from roofseg.report_cells import joined, name_cell
from roofseg.results import SPLITS, Attempt, Results

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
            *(_score(each, key, "val") for key in _whole(results)),
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
        f"{INTERVAL} **{SEALED}**: the recipe is not final, so its test split was not opened."
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
                _mark(each, "val"),
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
    leader = results.leader
    ties = [each.label for each in results.attempts if each.standing("val") == "tie"]
    found = with_interval(*_bounds(leader, "val_iou"))
    text = f"**{leader.label}** leads on validation with an IoU of {found}."
    table = results.compared("val")
    if table.empty:
        return text
    if ties:
        verb = "ties" if len(ties) == 1 else "tie"
        return f"{text} {joined(ties)} {verb} with it: these tiles cannot tell them apart."
    text = f"{text} No other attempt ties with it, by the interval of its difference."
    doubtful = [
        each.label
        for each in results.attempts[1:]
        if each.name in table.index and table.p_value[each.name] >= 1 - CONFIDENCE
    ]
    if doubtful:
        text += (
            f" But with few tiles such an interval is too narrow, and the test of sign flips does "
            f"not rule out chance for {joined(doubtful)}."
        )
    return text


def _floor(results: Results) -> str:
    constant, colour = results.floor["constant"], results.floor["colour_threshold"]
    sign = {"above": "≥", "below": "<"}[colour["direction"]]
    below = [
        each.label
        for each in results.attempts
        if not each.score("val_iou").value > (results.floor_iou)
    ]
    verdict = f"Not above it: **{joined(below)}**." if below else "Every attempt is above it."
    return (
        f"The floor, on validation: {constant['mask']}, IoU {number(constant['val']['iou'])}; "
        f"a colour threshold fitted on train ({colour['channel'].replace('_', ' ')} {sign} "
        f"{colour['threshold']}), IoU {number(colour['val']['iou'])}. {verdict}"
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
            number(row.p_value, 4 if row.p_value < 0.01 else 3),
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
    floors = [
        f"{table.floor.iloc[0]:.2g} on the {results.tile_counts[split]} tiles of {name}"
        for split, name in SPLITS.items()
        if (table := tables.get(split)) is not None
    ]
    return Section(
        "Against the leader",
        [
            Table(
                f"Difference in IoU to `{results.leader.name}`, mean over the same tiles, with its "
                "paired 95 % bootstrap interval. A **tie** is an interval that contains 0. p is "
                f"that of {_test(results)}, two-sided, and not corrected for the number of "
                f"comparisons; it cannot be below {joined(floors)}. The two can disagree: "
                "with few tiles the interval is too narrow, and p cannot be small.",
                header,
                rows,
                frozenset({"attempt", " "}),
            )
        ],
    )


def _test(results: Results) -> str:
    most = max(count or 0 for count in results.tile_counts.values())
    if most <= EXACT_TILES:
        return "the exact test that exchanges the two results of a tile (all sign flips)"
    return f"the test that exchanges the two results of a tile ({DRAWS:,} random sign flips)"


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


def _bounds(attempt: Attempt, key: str) -> tuple[float, float, float]:
    found = attempt.score(key)
    return found.value, found.low, found.high


def _score(attempt: Attempt, key: str, split: str) -> Cell | str:
    if not attempt.opened(split):
        return SEALED
    return with_interval(*_bounds(attempt, key))


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
