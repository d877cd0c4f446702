"""The results of tuning: a table of all runs, the best of each attempt, and how to apply it.

The best run is the best of several on the same val tiles, so its val IoU is biased upwards, and
more so with more runs. The other runs of the attempt tie with it or are behind, by the verdict on
their difference over tiles (`roofseg.results.verdicts.compare_with_best`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from roofseg.metrics import f1, iou
from roofseg.recipe.params import Params
from roofseg.results.tables import counted
from roofseg.results.verdicts import LEADER, NO_VERDICT, TIE, VERDICT, compare_with_best
from roofseg.tuning.grid import Run, settings

DONE = "done"
HEAD = ["attempt", "number", "name", "state"]
SCORES = ["val_iou", "val_f1", *VERDICT]


@dataclass(frozen=True)
class Result:
    """A run and its result.

    ``state`` is `DONE` or the state of a run without scores, such as "failed". ``counts`` has a row
    per val tile with the columns tile, tp, fp and fn; None if the run is not done.
    """

    run: Run
    state: str
    counts: pd.DataFrame | None = None


def tuning_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per run, those of an attempt together, in the order of ``results``.

    Columns are `HEAD`, every key that any attempt tunes, and `SCORES`. ``number`` counts an
    attempt's runs from 1. A value of a key is "null" for null, and missing if the attempt does not
    tune the key. ``val_iou`` and ``val_f1`` are means over tiles. ``difference`` is val_iou minus
    that of the attempt's best run, with its interval from ``low`` to ``high``. ``verdict`` is
    `LEADER` for the best run, the earlier of two equal ones; else `TIE` (the run may be as good),
    ``behind``, or `NO_VERDICT` on a single tile.
    """
    keys = list(dict.fromkeys(key for result in results for key in result.run.values))
    rows = []
    for attempt in dict.fromkeys(result.run.attempt for result in results):
        own = [result for result in results if result.run.attempt == attempt]
        scores = _scores(own)
        for number, result in enumerate(own, start=1):
            run = result.run
            row = {"attempt": attempt, "number": number, "name": run.name, "state": result.state}
            values = {key: "null" if value is None else value for key, value in run.values.items()}
            rows.append({**row, **values, **scores.get(number, {})})
    return pd.DataFrame(rows, columns=[*HEAD, *keys, *SCORES])


def tuned_keys(table: pd.DataFrame) -> list[str]:
    """The columns of a `tuning_table` that are keys of a recipe."""
    return [name for name in table.columns if name not in (*HEAD, *SCORES)]


def cell_text(value: object, digits: int = 6) -> str:
    """Format a value of a `tuning_table`, floats with ``digits`` digits; empty if missing."""
    if pd.isna(value):
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _scores(results: Sequence[Result]) -> dict[int, dict[str, object]]:
    """The columns `SCORES` of the runs of an attempt that have counts, by their number."""
    counts = {
        number: result.counts.set_index("tile")
        for number, result in enumerate(results, start=1)
        if result.counts is not None
    }
    if not counts:
        return {}
    ious = {
        number: pd.Series(iou(own.tp, own.fp, own.fn), own.index) for number, own in counts.items()
    }
    best, *_ = order = sorted(ious, key=lambda number: -ious[number].mean())
    pairs = compare_with_best(pd.DataFrame({number: ious[number] for number in order}))
    judged = pairs.set_index("attempt")[VERDICT].to_dict("index")
    judged[best] = dict.fromkeys(VERDICT, float("nan")) | {"difference": 0.0, "verdict": LEADER}
    return {
        number: {
            "val_iou": float(ious[number].mean()),
            "val_f1": float(f1(own.tp, own.fp, own.fn).mean()),
            **judged[number],
        }
        for number, own in counts.items()
    }


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """The row of each attempt's best run; the earlier one of two equal runs."""
    return table[table.verdict == LEADER]


def how_to_apply(
    table: pd.DataFrame, runs: Mapping[str, Run], params: Params, *, applicable: Collection[str]
) -> str:
    """The commands that put the best runs into force, and those that make them final.

    Args:
        table: `tuning_table`.
        runs: the runs of the table, by name.
        params: the parameters in force.
        applicable: names of the runs that `dvc exp apply` may apply: experiments of the current
            commit with the whole recipe. For other runs it would restore older files or a
            shortened recipe, so their values are run with `dvc exp run`; DVC trains nothing twice.
    """
    lines = []
    for number, row in enumerate(winners(table).itertuples(index=False)):
        run = runs[row.name]
        own = table[(table.attempt == row.attempt) & table.val_iou.notna()]
        lines.append(f"# {run.label}: val IoU {row.val_iou:.4f}, {_of_others(own.verdict)}")
        if number == 0 and row.name in applicable:
            lines.append("# (DVC may complain about outputs that were never made here; ignore it)")
            lines.append(f"dvc exp apply {row.name}")
        else:
            # `dvc exp apply` replaces all of params.yaml: a second one would undo the first.
            changes = settings(replace(run, overrides=run.values), params)
            chosen = " ".join(f"-S {change}" for change in changes)
            lines.append(f"dvc exp run {chosen} evaluate@{run.attempt}")
        lines.append(f"roofseg finalize {run.attempt}")
        lines.append(f'git commit -am "Tuned {run.attempt}" && dvc repro')
    return "\n".join(lines)


def _of_others(verdicts: pd.Series) -> str:
    """How an attempt's best run compares with the others; ``verdicts`` are of its scored runs."""
    text = f"the best of {counted(len(verdicts), 'recipe')}"
    if (verdicts == NO_VERDICT).any():
        return f"{text}; a single val tile gives no verdicts"
    ties = int((verdicts == TIE).sum())
    return f"{text}; {ties} of the others {'ties' if ties == 1 else 'tie'} with it"
