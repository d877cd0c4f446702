"""What tuning found: every run in one table, the best of each attempt, and how to apply it.

The best run is the best of several on the same few val tiles, so its val IoU flatters it: the more
runs, the more. A run ties with the best where the 95 % paired interval of the difference over tiles
holds 0 (`roofseg.results.intervals.compare`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from roofseg.metrics import f1, iou
from roofseg.recipe.params import Params
from roofseg.results.intervals import STATISTICS, compare
from roofseg.tuning.grid import Run, settings

# A run that broke off has a score, where it came so far, but no model that could be applied.
DONE, PRUNED, BROKE_OFF = "done", "pruned", "broke off"
COUNTS = ["tp", "fp", "fn"]
HEAD = ["engine", "attempt", "number", "name", "state"]
SCORES = ["val_iou", "val_f1", "difference", "low", "high", "tie"]


@dataclass(frozen=True)
class Result:
    """A run of an engine (grid or optuna), and what became of it.

    ``number`` counts an attempt's runs from 1, as the budget has them. ``val`` has a row per val
    tile with columns tile, tp, fp, fn; None while there is no score.
    """

    run: Run
    engine: str
    number: int
    state: str
    val: pd.DataFrame | None = None


def trial_state(record: Mapping[str, Any]) -> str:
    """What became of a trial of Optuna, by its record."""
    if record["result"]["failure"]:
        return BROKE_OFF
    return PRUNED if record["pruned"] else DONE


def tuning_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per run, those of an attempt together, in the order in which they were tried.

    Columns are `HEAD`, every key that any attempt tunes, and `SCORES`: val_iou and val_f1 are means
    over tiles; difference is the val IoU minus that of the attempt's best run that is `DONE`, with
    its 95 % interval low to high; tie says whether that holds 0 (the best ties with itself).
    """
    keys = list(dict.fromkeys(key for result in results for key in result.run.values))
    rows = [
        {
            **{"engine": result.engine, "attempt": result.run.attempt, "number": result.number},
            **{"name": result.run.name, "state": result.state},
            **{key: _shown(result.run.values, key) for key in keys},
            **_scores(result, _best(results, result.run.attempt)),
        }
        for attempt in dict.fromkeys(result.run.attempt for result in results)
        for result in results
        if result.run.attempt == attempt
    ]
    return pd.DataFrame(rows, columns=[*HEAD, *keys, *SCORES])


def tuned_keys(table: pd.DataFrame) -> list[str]:
    """The columns of a `tuning_table` that are keys of a recipe."""
    return [name for name in table.columns if name not in (*HEAD, *SCORES)]


def _shown(values: Mapping[str, object], key: str) -> object:
    """A value that was tried; None where the attempt tunes no such key, which null is not."""
    return "null" if key in values and values[key] is None else values.get(key)


def _iou(result: Result) -> float:
    assert result.val is not None
    return float(iou(*(result.val[column] for column in COUNTS)).mean())


def _best(results: Sequence[Result], attempt: str) -> Result | None:
    whole = [
        result
        for result in results
        if result.run.attempt == attempt and result.state == DONE and result.val is not None
    ]
    return max(whole, key=_iou, default=None)


def _scores(result: Result, best: Result | None) -> dict[str, object]:
    if result.val is None:
        return {}
    counts = [result.val[column] for column in COUNTS]
    found: dict[str, object] = {"val_iou": _iou(result), "val_f1": float(f1(*counts).mean())}
    if best is None or best.val is None:
        return found
    own, highest = (each.sort_values("tile")[COUNTS].to_numpy() for each in (result.val, best.val))
    difference = compare(own, highest, STATISTICS["iou"])
    interval = difference.difference
    return {
        **found,
        **{"difference": interval.value, "low": interval.low, "high": interval.high},
        "tie": "yes" if difference.tie else "no",
    }


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """The row of each attempt's best run; of equals the one that was tried first."""
    whole = table[table.state == DONE].dropna(subset="val_iou")
    return whole.loc[whole.groupby("attempt", sort=False).val_iou.idxmax()]


def how_to_apply(
    table: pd.DataFrame, runs: Mapping[str, Run], params: Params, *, applicable: Collection[str]
) -> str:
    """The commands that put the best runs into force, and those that make them final.

    Args:
        table: `tuning_table`.
        runs: by name.
        params: the parameters in force.
        applicable: the runs that are experiments of the current commit and as long as the recipe.
            Any other is run here: `dvc exp apply` brings all files as that experiment had them,
            older ones and a shortened recipe too. DVC trains nothing twice.
    """
    lines = []
    for number, row in enumerate(winners(table).itertuples(index=False)):
        run = runs[row.name]
        own = table[(table.attempt == row.attempt) & table.val_iou.notna()]
        ties = set(own[own.tie == "yes"].name) - {row.name}
        lines.append(
            f"# {run.label}: val IoU {row.val_iou:.4f}, the best of {own.name.nunique()} recipes, "
            f"with which {len(ties)} of the others tie"
        )
        if number == 0 and row.name in applicable:
            lines.append(
                "# (which may complain of outputs that were never made here; it is applied)"
            )
            lines.append(f"dvc exp apply {row.name}")
        else:
            # A second `dvc exp apply` would take back the first: it brings all of params.yaml.
            chosen = Run(run.attempt, run.name, run.values, run.values)
            changes = " ".join(f"-S {setting}" for setting in settings(chosen, params))
            lines.append(f"dvc exp run {changes} evaluate@{run.attempt}")
        lines.append(f"make finalize ATTEMPTS={run.attempt}")
        lines.append(f'git commit -am "Tuned {run.attempt}" && dvc repro')
    return "\n".join(lines)
