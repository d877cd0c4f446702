"""The report's sections on training, on more measures than the headline's, and on costs."""

from __future__ import annotations

import math
from dataclasses import astuple

import pandas as pd

from roofseg.metrics import SPLITS
from roofseg.pages.page import Block, Cell, Figure, Prose, Section, Table, number, with_interval
from roofseg.report import charts
from roofseg.report.cells import legend, name_cell
from roofseg.report.cost_table import COSTS
from roofseg.report.leaderboard_text import MEASURES, MEASURES_SAID
from roofseg.report.results import Attempt, Results


def training(results: Results) -> Section:
    blocks: list[Block] = []
    if curves := results.curves("convergence.csv"):
        blocks.append(
            Figure(
                "IoU on validation after each epoch. The mark is the best epoch, whose weights "
                "were kept and are scored above: a maximum over epochs, so it flatters "
                "validation.",
                "Validation IoU by epoch, one line per attempt. "
                + " ".join(
                    f"{each.label}: best {number(float(curves[each.index].val_iou.max()))} in "
                    f"epoch {each.row['best_epoch']}."
                    for each in results.in_order
                    if each.index in curves
                ),
                charts.convergence(curves),
                legend=legend(results),
            )
        )
    columns = {
        "lr": "lr",
        "augmentation": "augmentation",
        "dropout": "dropout",
    }
    rows: list[list[Cell | str]] = [
        [
            Cell(each.name, code=True),
            Cell(each.recipe.encoder, _prior(each)),
            *(_plain(each.row[key]) for key in columns),
            Cell(first, f"+ {second}" if second else ""),
            str(each.row["best_epoch"]),
        ]
        for each in results.attempts
        for first, _, second in [str(each.row["loss"]).partition(" + ")]
    ]
    header = ["attempt", "encoder, prior", *columns.values(), "loss", "best epoch"]
    words = frozenset({"attempt", "encoder, prior", "augmentation", "loss"})
    blocks.append(Table("The recipe of each attempt.", header, rows, words))
    return Section("Training", blocks)


def _prior(attempt: Attempt) -> str:
    without = " (no SAM weights)" if attempt.recipe.without_sam else ""
    return f"{attempt.recipe.prior}{without}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def measures(results: Results) -> Section:
    blocks: list[Block] = [Prose(f"{MEASURES_SAID} In brackets, 95 % intervals over the tiles.")]
    for split in results.splits:
        opened = [each for each in results.attempts if each.opened(split)]
        known = {
            key: name
            for key, name in MEASURES.items()
            if any(key in each.row["measures"][split] for each in opened)
        }
        rows: list[list[Cell | str]] = [
            [name_cell(each), *(with_interval(*astuple(each.measure(split, key))) for key in known)]
            for each in opened
        ]
        if known:
            caption = f"On {SPLITS[split]}."
            header = ["attempt", *known.values()]
            blocks.append(Table(caption, header, rows, frozenset({"attempt"})))
    units = dict.fromkeys(results.leader.sizes.unit)  # two where the GSD of some tiles is unknown
    blocks += [_by_size(results, unit) for unit in units]
    return Section("More measures", blocks)


def _by_size(results: Results, unit: str) -> Figure:
    tables = {
        each.index: each.sizes[(each.sizes.split == "val") & (each.sizes.unit == unit)]
        for each in results.in_order
    }
    first = tables[results.leader.index]
    # NaN where there are none.
    shares = {index: list(table.found / table.buildings) for index, table in tables.items()}
    unit = {"m2": "m\N{SUPERSCRIPT TWO}"}.get(unit, unit)
    counts = ", ".join(str(count) for count in first.buildings)
    return Figure(
        "Errors by size: the share of the buildings of validation that were found (IoU above 0.5), "
        f"by their area in {unit}. From the smallest class on there are {counts} of them; of few "
        "buildings a share says little.",
        f"Share of buildings found, by their area in {unit}, one line per attempt.",
        charts.by_size(list(first["size"]), shares, unit),
        legend=legend(results),
    )


def thresholds(results: Results) -> Section:
    blocks: list[Block] = []
    if curves := results.curves("precision_recall.csv"):
        blocks.append(
            Figure(
                "Precision and recall over all pixels of validation, for every threshold. The "
                "mark is at 0.5, which all scores here use; nothing was tuned to find it.",
                "Precision against recall on validation, one line per attempt.",
                charts.precision_recall(curves),
                legend=legend(results),
            )
        )
    if curves := results.curves("reliability.csv"):
        errors = {each.label: each.row["scores"]["val"].get("ece") for each in results.in_order}
        told = [f"{name} {number(ece)}" for name, ece in errors.items() if ece is not None]
        blocks.append(
            Figure(
                "Reliability on validation: of the pixels that were given a probability, the "
                "share that is building. On the dashed line a probability is what it says; below "
                "it the attempt is too sure of buildings, above it not sure enough."
                + (f" Expected calibration error: {', '.join(told)}." if told else ""),
                "Share of building against predicted probability, one line per attempt.",
                charts.reliability(curves),
                legend=legend(results),
            )
        )
    return Section("Thresholds and calibration", blocks)


def _parameters(row: pd.Series) -> Cell:
    total, trained = (
        f"{row[f'{which}_parameters'] / 1e6:.2f} M" for which in ("total", "trainable")
    )
    return Cell(total, f"{trained} trained")


def costs(results: Results) -> Section:
    table = results.table("costs.csv")
    if table.empty:
        return Section("Costs", [])
    table = table.set_index("attempt")
    shown = {key: column for key, column in COSTS.items() if key in table}
    rows: list[list[Cell | str]] = [
        [
            name_cell(each),
            _parameters(table.loc[each.name]),
            *(
                number(None) if pd.isna(value := table.loc[each.name, key]) else form(value)
                for key, (_, form) in shown.items()
            ),
        ]
        for each in results.attempts
    ]
    header = ["attempt", "parameters", *(name for name, _ in shown.values())]
    blocks: list[Block] = [
        Table(
            "GMAC: billions of multiply-adds, of mapping a megapixel. Times, memory and speed are "
            "of one run, on a machine that may have had other work; IoU per hour of training "
            "flatters what stops early. `metrics/costs.md` has the devices.",
            header,
            rows,
            frozenset({"attempt"}),
        )
    ]
    for key, unit, label in (
        ("minutes", 1, "minutes of training"),
        ("multiply_adds_per_megapixel", 1e9, "billions of multiply-adds per megapixel"),
    ):
        if key in table:
            points = {
                each.index: (float(table.loc[each.name, key]) / unit, each.score("val_iou"))
                for each in results.in_order
            }
            blocks.append(
                Figure(
                    f"Validation IoU with its 95 % interval against {label}.",
                    f"Validation IoU against {label}, one mark per attempt.",
                    charts.cost(points, label, f"cost-{key}"),
                    legend=legend(results),
                )
            )
    return Section("Costs", blocks)
