"""The report's sections on training, further measures, thresholds, calibration and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from roofseg.metrics import SCORED_SPLITS
from roofseg.pages.page import Block, Cell, Figure, Key, Prose, Section, Table, join_words
from roofseg.report import charts
from roofseg.report.headline import name_cell, score_cell
from roofseg.report.leaderboard import MEASURES, Leaderboard, cost_values, loss_name
from roofseg.results.tables import number

COST_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "multiply_adds_per_megapixel": ("GMAC per Mpx", lambda value: f"{value / 1e9:.1f}"),
    "model_bytes": ("model, MB", lambda value: f"{value / 1e6:.1f}"),
    "seconds_per_epoch": ("s per epoch", lambda value: f"{value:.1f}"),
    "minutes": ("minutes", lambda value: f"{value:.1f}"),
    "peak_memory_gb": ("peak memory, GB", lambda value: f"{value:.1f}"),
    "inference_megapixels_per_second": ("mapping, Mpx/s", lambda value: f"{value:.3g}"),
    "iou_per_hour": ("IoU per hour", lambda value: f"{value:.2f}"),
}
"""Keys of `cost_values` that the report shows, with their heading and the format of a value."""


def _legend(board: Leaderboard) -> list[Key]:
    """The legend of a chart: the colour of each attempt."""
    return [Key(charts.series(attempt), attempt.label) for attempt in board.attempts]


def training(board: Leaderboard) -> Section:
    """The recipes, and validation IoU by epoch."""
    best = " ".join(
        f"{attempt.label}: best {number(float(attempt.epochs.val_iou.max()))} in epoch "
        f"{attempt.training['best_epoch']}."
        for attempt in board.attempts
    )
    rows: list[list[Cell | str]] = [
        [
            name_cell(attempt),
            Cell(
                f"{attempt.recipe.encoder},",
                f"{attempt.recipe.prior}{f', {lora}' if (lora := attempt.recipe.lora) else ''}",
            ),
            f"{attempt.recipe.lr:g}",
            attempt.recipe.augmentation,
            f"{attempt.recipe.dropout:g}",
            # The loss takes two lines, so that the table fits the page.
            Cell(first, f"+ {second}" if second else ""),
            str(attempt.training["best_epoch"]),
        ]
        for attempt in board.ranked
        for first, _, second in [loss_name(attempt.recipe.bce_weight).partition(" + ")]
    ]
    header = ["attempt", "encoder, prior", "lr", "augmentation", "dropout", "loss", "best epoch"]
    words = frozenset({"attempt", "encoder, prior", "augmentation", "loss"})
    return Section(
        "Training",
        [
            Figure(
                "Validation IoU after each epoch. The mark is the best epoch, whose weights were "
                "kept and are scored above. It is a maximum over epochs, so it is optimistic.",
                f"Validation IoU by epoch, one line per attempt. {best}",
                charts.convergence(board.attempts),
                legend=_legend(board),
            ),
            Table("The recipe of each attempt.", header, rows, words),
        ],
    )


def measures(board: Leaderboard) -> Section:
    """Further scores, and the buildings found by size."""
    blocks: list[Block] = [
        Prose(
            "Precision and recall are pooled over pixels. Boundary IoU (Cheng et al. 2021) "
            "compares only the pixels near an edge. It is given for 3 px and for 1 m, rounded to "
            "whole pixels; at 0.3 m per pixel the two are equal. Building F1 counts whole "
            "buildings: a building is found if a predicted building has an IoU above 0.5 with it. "
            "Boundary IoU and building F1 are means over tiles. The expected calibration error "
            "(ECE) over all pixels is the mean difference between the predicted probability and "
            "the share of pixels that are building; 0 is best. Brackets hold 95 % intervals over "
            "tiles. The files in `metrics/attempts` have these measures by tile."
        )
    ]
    for split in board.splits:
        opened = [attempt for attempt in board.ranked if attempt.opened(split)]
        known = {
            name: heading
            for name, heading in MEASURES.items()
            if any(attempt.scores[split].get(name) is not None for attempt in opened)
        }
        rows: list[list[Cell | str]] = [
            [name_cell(attempt), *(score_cell(attempt, split, name) for name in known)]
            for attempt in opened
        ]
        header = ["attempt", *known.values()]
        blocks.append(Table(f"On {SCORED_SPLITS[split]}.", header, rows, frozenset({"attempt"})))
    units = dict.fromkeys(board.leader.sizes.unit)  # two if only some tiles have a known GSD
    return Section("More measures", [*blocks, *(_by_size(board, unit) for unit in units)])


def _by_size(board: Leaderboard, unit: str) -> Figure:
    sizes = board.leader.sizes
    counts = ", ".join(str(count) for count in sizes.buildings[sizes.unit == unit])
    label = {"m2": "m\N{SUPERSCRIPT TWO}"}.get(unit, unit)
    return Figure(
        f"Share of the validation buildings that were found (IoU above 0.5), by area in {label}. "
        f"Buildings in each class, smallest class first: {counts}. A share of few buildings is "
        "unreliable.",
        f"Share of buildings found by area in {label}, one line per attempt.",
        charts.by_size(board.attempts, unit, label),
        legend=_legend(board),
    )


def thresholds(board: Leaderboard) -> Section:
    """Precision and recall by threshold, and calibration."""
    errors = [
        f"{attempt.label} {number(error)}"
        for attempt in board.attempts
        if (error := attempt.scores["val"].get("ece")) is not None
    ]
    return Section(
        "Thresholds and calibration",
        [
            Figure(
                "Precision and recall over all validation pixels at every threshold. The mark is "
                "at 0.5, the threshold of all scores on this page; it was fixed, not tuned.",
                "Precision against recall on validation, one line per attempt.",
                charts.precision_recall(board.attempts),
                legend=_legend(board),
            ),
            Figure(
                "Reliability on validation: the share of pixels that are building, by the "
                "probability that was predicted for them. On the dashed line probabilities are "
                "calibrated; below it the attempt predicts building too often, above it too "
                "rarely."
                + (f" Expected calibration error: {', '.join(errors)}." if errors else ""),
                "Share of building against predicted probability, one line per attempt.",
                charts.reliability(board.attempts),
                legend=_legend(board),
            ),
        ],
    )


def costs(board: Leaderboard) -> Section:
    """The cost of training and of using each attempt."""
    values = {attempt.name: cost_values(attempt) for attempt in board.attempts}
    rows: list[list[Cell | str]] = [
        [
            name_cell(attempt),
            Cell(
                f"{attempt.costs['total_parameters'] / 1e6:.2f} M,",
                f"{attempt.costs['trainable_parameters'] / 1e6:.2f} M trained"
                + (f", {adapters / 1e6:.2f} M by LoRA" if adapters else ""),
            ),
            *(
                number(None) if (value := values[attempt.name][key]) is None else show(value)
                for key, (_, show) in COST_COLUMNS.items()
            ),
        ]
        for attempt in board.ranked
        for adapters in [attempt.costs.get("adapter_parameters")]
    ]
    header = ["attempt", "parameters", *(heading for heading, _ in COST_COLUMNS.values())]
    window = board.leader.inference["patch_size"]
    caption = (
        "GMAC per Mpx: billions of multiply-adds to map a megapixel in windows of "
        f"{window} x {window} px without overlap. Training ran on "
        f"{_devices(attempt.training for attempt in board.ranked)}; an epoch includes validation, "
        "and memory is that of the GPU or, on a CPU, of the whole process. Mapping ran on "
        f"{_devices(attempt.inference for attempt in board.ranked)}, without reading and writing "
        "files. Times, memory and speed come from one run on a machine that may have had other "
        "work. IoU per hour of training favours runs that stop early; read it beside val IoU."
    )
    blocks: list[Block] = [Table(caption, header, rows, frozenset({"attempt"}))]
    for key, unit, label in (
        ("minutes", 1, "minutes of training"),
        ("multiply_adds_per_megapixel", 1e9, "billions of multiply-adds per megapixel"),
    ):
        spent = [(values[attempt.name][key] or 0) / unit for attempt in board.attempts]
        blocks.append(
            Figure(
                f"Validation IoU with its 95 % interval against {label}.",
                f"Validation IoU against {label}, one mark per attempt.",
                charts.cost(board.attempts, spent, label, f"cost-{key}"),
                legend=_legend(board),
            )
        )
    return Section("Costs", blocks)


def _devices(runs: Iterable[Mapping[str, str]]) -> str:
    """List the different devices and precisions of some runs."""
    return join_words(list(dict.fromkeys(f"{run['device']} ({run['precision']})" for run in runs)))
