"""Code that study_run and fold_run share: a run's recipe, and its training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofseg.core.errors import UserError
from roofseg.core.files import flush, read_json, remove_scratch, sha256_file, write_json
from roofseg.core.run_states import mark_finished
from roofseg.core.terminal import warn
from roofseg.patches import Patch
from roofseg.recipe.params import Machine, Recipe
from roofseg.recipe.parsing import read_params
from stages import state_root

if TYPE_CHECKING:
    from roofseg.training.engine import Trained

Record = dict[str, Any]


def declared_run(study: str, attempt: str, changes: Record) -> tuple[Record, Recipe, Machine]:
    """Read the recipe of an attempt in a study, with ``changes`` to its keys.

    Returns the record that recipe@ATTEMPT wrote, with the changes; its recipe; and the machine,
    which draws no pictures of val.

    Raises:
        UserError: the prior is missing, or not the one that the record was made with
    """
    source = Path("studies/recipes", attempt, f"{study}.json")
    declared: Record = read_json(source)
    declared["recipe"] |= changes
    recipe = Recipe.model_validate(declared["recipe"])
    machine = read_params(Path("params.yaml")).machine().model_copy(update={"overlay_every": 0})
    prior = Path("weights") / f"{recipe.prior}.safetensors"
    if not prior.is_file() or sha256_file(prior) != declared["prior_sha256"]:
        raise UserError(
            f"{prior}: missing, or not the prior that {source} was made with. Run "
            f"`dvc repro studies/dvc.yaml:recipe@{attempt}`."
        )
    return declared, recipe, machine


def train_run(
    study: str,
    run: str,
    attempt: str,
    recipe: Recipe,
    machine: Machine,
    inputs: str,
    train_patches: list[Patch],
    val_patches: list[Patch],
    finish: Callable[[Trained], Record],
) -> None:
    """Train a run, or resume it, and write its record.

    Args:
        study, run, attempt: their names.
        recipe, machine: of `declared_run`.
        inputs: the hash of everything that decides the run's result.
        train_patches, val_patches: to train on, and to choose the best epoch by.
        finish: scores the trained model, writes what else the run keeps, and returns the record.
    """
    from roofseg.training.resume import locked_state, state_name
    from stages._training import check_parent, fit

    out = Path("metrics/studies/runs", study, f"{run}.json")
    name = state_name(f"{study}-{attempt}", inputs, recipe, machine)
    with (
        locked_state(state_root() / name) as state,
        tempfile.TemporaryDirectory() as scratch,  # for curves and overlays, which are not kept
    ):
        folder = Path(scratch)
        trained = fit(
            recipe,
            attempt,
            train_patches,
            val_patches,
            machine=machine,
            state=state,
            out=folder,
        )
        if trained is None:  # not the first process of a run on several devices
            return
        check_parent()
        record = finish(trained)
        remove_scratch(out)
        write_json(out, {**record, "inputs": inputs, "result": trained.record()})
        flush(out)
        mark_finished(state, sha256_file(out))
        check_parent()
    if trained.failure:
        warn(f"{out}: training ended early: {trained.failure}")
