"""One run of a study: train as the pipeline does, on a subset of the tiles, and score val."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from roofseg.core.files import flush, remove_scratch, write_json
from roofseg.core.run_states import remove_state
from roofseg.metrics import COUNTS
from roofseg.models.device import resolve_device
from roofseg.patches import read_patches
from roofseg.recipe.digest import inputs_hash
from roofseg.recipe.params import Params, Recipe
from roofseg.studies.runs.scores import tile_scores
from roofseg.studies.runs.subsets import subset
from roofseg.training.engine import train
from roofseg.training.resume import locked_state, state_name
from stages.run_states import state_root
from stages.training import check_parent, code, own_gpus, parent, prior_file

PATCHES = Path("patches")
Record = dict[str, Any]


def study_run(
    recipe: Recipe,
    *,
    study: str,
    attempt: str,
    params: Params,
    out: Path | None = None,
    tiles: int | None = None,
    callbacks: Sequence[Callback] = (),
    note: Callable[[], Mapping[str, Any]] = dict,
) -> Record | None:
    """Train a recipe on ``tiles`` of the training tiles (all without it), and score val.

    ``recipe`` is resolved; its seed also picks the subset. ``study`` and ``attempt`` name the run,
    ``params`` gives the settings of the machine. The record is written to ``out``; ``note`` is
    called after training and returns further keys for it. The run's state is kept after every
    epoch, and the same call resumes from it; an exception in a callback ends the run and keeps the
    state.

    Returns:
        The record; None in all processes of a run on several devices but the first. ``inputs`` is a
        hash of everything that decides the result, ``result`` is `training.engine.Trained.record`,
        ``val`` has the counts of each tile with the best weights, ``val_iou`` is their mean IoU.
    """
    machine = params.machine().model_copy(update={"overlay_every": 0})
    train_patches, val = (read_patches(PATCHES / split) for split in ("train", "val"))
    names = [patch.tile for patch in train_patches]
    chosen = subset(names, len(names) if tiles is None else tiles, recipe.seed)
    resolved, prior = recipe.model_dump(mode="json"), prior_file(recipe)
    files = [*code(), prior, PATCHES / "train", PATCHES / "val"]
    inputs = inputs_hash(json.dumps([resolved, chosen], sort_keys=True), files)
    name = state_name(f"{study}-{attempt}", inputs, recipe, machine)
    with (
        locked_state(state_root() / name) as state,
        own_gpus(machine) as gpus,
        tempfile.TemporaryDirectory() as scratch,  # for curves and pictures, which are not kept
    ):
        trained = train(
            recipe,
            attempt=attempt,
            train_patches=[patch for patch in train_patches if patch.tile in chosen],
            val_patches=val,
            prior=prior,
            machine=machine,
            live=Path(scratch) / "live",
            overlays=Path(scratch) / "overlays",
            state=state,
            parent=parent(),
            gpus=gpus,
            callbacks=callbacks,
        )
        if trained is None:
            return None
        check_parent()
        scores = tile_scores(trained.model, val, resolve_device(machine.device))
        record = {
            **{"study": study, "attempt": attempt, "label": recipe.label(attempt)},
            **{"dataset": params.dataset, "patch_size": params.patch_size},
            **{"train_tiles": chosen, **note(), "recipe": resolved, "inputs": inputs},
            "result": trained.record(),
            "val": scores[["tile", *COUNTS]].to_dict("records"),
            "val_iou": float(scores.iou.mean()),
        }
        if out:
            remove_scratch(out)
            write_json(out, record)
            flush(out)
            check_parent()
        # No later stage says that DVC has recorded the output, as evaluate does for an attempt.
        remove_state(state)
    return record
