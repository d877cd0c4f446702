"""Compare the runs of `roofseg tune`; say how to apply the best.

Writes metrics/studies/tuning.csv, with a row per run, and plots/studies/tuning_*.png. The runs are
those that the sampler of studies/tuning.yaml has picked so far; all scores are on val. At least one
run must be finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from roofseg.commands.project import PARAMS
from roofseg.commands.tune import SEARCHES, TUNING, tuning_in_force
from roofseg.core.errors import UserError
from roofseg.core.images import write_png
from roofseg.recipe.parsing import read_params
from roofseg.results.disclaimers import data_label
from roofseg.results.tables import markdown_table, write_csv
from roofseg.tuning import dvc_queue
from roofseg.tuning.execute import read_results
from roofseg.tuning.sampler import known_runs
from roofseg.tuning.table import cell_text, how_to_apply, tuning_table

TABLE, PLOTS = Path("metrics/studies/tuning.csv"), Path("plots/studies")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def main(args: argparse.Namespace) -> None:
    from roofseg.tuning.figures import figures  # with Matplotlib: `--help` must not wait for it

    params = read_params(PARAMS)
    tuning, spaces = tuning_in_force(params)
    runs = {run.name: run for run in known_runs(tuning, spaces, SEARCHES)}
    table = tuning_table(read_results(runs.values()))
    if table.val_iou.isna().all():
        raise UserError(f"{TUNING}: none of its runs is finished. Run them with `roofseg tune`.")
    write_csv(TABLE, table.assign(dataset=params.dataset))
    for name, picture in figures(table, params).items():
        write_png(PLOTS / f"tuning_{name}.png", picture)
    print(f"Runs on {data_label(params.dataset, params.patch_size)}, by {tuning.sampler}\n")
    labels = {name: recipe.label(name) for name, recipe in params.recipes().items()}
    printed = table.drop(columns=["name"]).replace({"attempt": labels}).map(cell_text, digits=4)
    print("\n".join(markdown_table(list(printed.columns), printed.to_numpy().tolist())))
    print()
    head = dvc_queue.head()
    current = {name for name, found in dvc_queue.finished().items() if found.baseline == head}
    applicable = set() if tuning.common else current
    print(how_to_apply(table, runs, params, applicable=applicable))
