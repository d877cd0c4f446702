"""Code that the stages train and study_run share: their inputs, GPUs and parent process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roofseg.core.errors import StoppedError
from roofseg.core.files import read_json
from roofseg.models.device import claim_gpus, resolve_device, visible_gpus
from roofseg.patches import Patch, seen_tiles
from roofseg.recipe.params import Machine, Params, Recipe
from roofseg.training.engine import Trained, train
from roofseg.training.stopping import is_orphan
from stages import PARENT


def parent() -> int | None:
    """The process whose end stops the training: DVC, if DVC started this stage; otherwise None."""
    return PARENT if "DVC_STAGE" in os.environ else None


def check_parent() -> None:
    """Raise StoppedError if DVC has ended, since it cannot record the outputs any more."""
    if is_orphan(parent()):
        raise StoppedError(
            "stopped: dvc, which started this stage, has ended. The finished run is kept; the same "
            "command writes its outputs.",
            143,
        )


@contextmanager
def own_gpus(machine: Machine) -> Iterator[list[int] | None]:
    """Claim GPUs for this run alone and yield their indices; yield None without CUDA."""
    if resolve_device(machine.device) != "cuda":
        yield None
        return
    visible = visible_gpus()
    with claim_gpus(visible, machine.devices, Path(tempfile.gettempdir())) as gpus:
        # The run's other processes (one per device) find their GPUs through this variable.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(f"GPU-{visible[index]}" for index in gpus)
        yield gpus


def fit(
    recipe: Recipe,
    attempt: str,
    train_patches: list[Patch],
    val_patches: list[Patch],
    *,
    machine: Machine,
    state: Path,
    out: Path,
) -> Trained | None:
    """Train a recipe and write its curves and overlays below ``out``.

    A run on several devices has one process per device, and all but the first return None.
    """
    with own_gpus(machine) as gpus:
        return train(
            recipe,
            attempt=attempt,
            train_patches=train_patches,
            val_patches=val_patches,
            prior=prior_file(recipe),
            machine=machine,
            live=out / "metrics" / "attempts" / attempt / "live",
            overlays=out / "plots" / "training" / attempt,
            state=state,
            parent=parent(),
            gpus=gpus,
        )


def code_files(stage: str) -> set[Path]:
    """The project's modules that this process has imported, and the file ``stage`` that it runs."""
    modules = [
        module for name, module in sys.modules.items() if name.startswith(("roofseg", "stages"))
    ]
    files = [stage, *(module.__file__ for module in modules if module.__file__)]
    return {Path(file).resolve() for file in files}


def prior_file(recipe: Recipe) -> Path:
    """The weights file of the recipe's prior, which a stage of weights/dvc.yaml makes."""
    return Path("weights") / f"{recipe.prior}.safetensors"


def provenance(params: Params, recipe: Recipe) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The record of the recipe's prior, and the tiles that this prior and training have seen."""
    record = read_json(prior_file(recipe).with_suffix(".json"))
    recipe.check_prior(record)
    own = seen_tiles(Path("patches"), dataset=params.dataset, patch_size=params.patch_size)
    return record, record.pop("tiles", []) + own
