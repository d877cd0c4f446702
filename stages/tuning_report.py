"""Gather the runs of tuning into a table and figures, and say how to apply the best.

``make tuning-report``. Reads DVC's experiments and the records of Optuna's trials, val alone. While
runs are missing it shows those that there are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from roofseg.core.errors import UserError
from roofseg.core.images import write_png
from roofseg.recipe.params import Params, read_params
from roofseg.results.disclaimers import data_label
from roofseg.results.tables import markdown_table, write_csv
from roofseg.tuning import dvc_queue
from roofseg.tuning.figures import figures
from roofseg.tuning.grid import Run, budget
from roofseg.tuning.table import DONE, Result, how_to_apply, tuning_table
from stages import run
from stages.tuning_runs import TABLE, read_tuning, trials

PLOTS = Path("plots/studies")


def main() -> None:
    params = read_params(Path("params.yaml"))
    tuning, spaces = read_tuning(params)
    every = {each.name: each for space in spaces.values() for each in space}
    finished = dvc_queue.finished()
    results = [*queued(budget(spaces, tuning.runs), params, finished), *trials(spaces)]
    table = tuning_table(results)
    if table.val_iou.isna().all():
        raise UserError("no run of studies/tuning.yaml is done; `make tune` runs them")
    write_csv(TABLE, table.assign(dataset=params.dataset))
    for name, picture in figures(table, params).items():
        write_png(PLOTS / f"tuning_{name}.png", picture)
    print(f"Runs on {data_label(params.dataset, params.patch_size)}", end="\n\n")
    labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
    printed = table.drop(columns=["name"]).replace({"attempt": labels}).map(cell)
    rows = printed.astype(str).to_numpy().tolist()
    print("\n".join(markdown_table(list(printed.columns), rows)), end="\n\n")
    head = dvc_queue.head()
    of_head = {name for name, each in finished.items() if each.baseline == head}
    applicable = frozenset() if tuning.common else of_head
    print(how_to_apply(table, every, params, applicable=applicable))


def cell(value: object) -> object:
    """A cell of the printed table."""
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value


def queued(
    runs: list[Run], params: Params, finished: Mapping[str, dvc_queue.Finished]
) -> list[Result]:
    """The DVC experiments among these runs, and what DVC knows of the others."""
    known = [finished[each.name].baseline for each in runs if each.name in finished]
    shown = dvc_queue.shown({dvc_queue.head(), *known})
    results, numbers = [], dict.fromkeys(params.attempts, 0)
    for each in runs:
        numbers[each.attempt] += 1
        state = (shown.get(each.name) or {}).get("state") or "not queued"
        val = None
        if each.name in finished:
            state, val = DONE, counts(finished[each.name], each.attempt)
        results.append(Result(each, "grid", numbers[each.attempt], state, val))
    return results


def counts(experiment: dvc_queue.Finished, attempt: str) -> pd.DataFrame:
    """The counts of the val tiles, as evaluate wrote them."""
    text = experiment.read(f"metrics/attempts/{attempt}/tiles.csv")
    tiles = pd.read_csv(io.StringIO(text), dtype={"tile": str}, keep_default_na=False)
    return tiles[tiles.split == "val"]


if __name__ == "__main__":
    run(main)
