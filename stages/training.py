"""Shared by the stages that train: their inputs, and the process, disk and GPUs that they use."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roofseg.core.errors import StoppedError
from roofseg.models.device import claim_gpus, resolve_device, visible_gpus
from roofseg.patches import Patch
from roofseg.recipe.params import Machine, Recipe
from roofseg.training.engine import Trained, train
from roofseg.training.stopping import is_orphan
from stages import PARENT


def parent() -> int | None:
    """The process whose end ends the training too: DVC, if DVC started this stage."""
    return PARENT if "DVC_STAGE" in os.environ else None


def check_parent() -> None:
    """Raise StoppedError if DVC has gone: it would not record what the stage writes."""
    if is_orphan(parent()):
        raise StoppedError(
            "stopped: dvc, which started the run, has gone. The finished run is kept.", 143
        )


@contextmanager
def own_gpus(machine: Machine) -> Iterator[list[int] | None]:
    """Claim the GPUs for this training; no other training on this machine uses them."""
    if resolve_device(machine.device) != "cuda":
        yield None
        return
    visible = visible_gpus()
    with claim_gpus(visible, machine.devices, Path(tempfile.gettempdir())) as gpus:
        # The run's other processes, one per device, look up their GPUs in this variable.
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
    """Train on the patches; write curves and overlays below ``out``.

    Returns None in all processes of a run on several devices but the first.
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


def code() -> set[Path]:
    """The files of this project that the process has imported."""
    modules = [
        module for key, module in sys.modules.items() if key.startswith(("roofseg", "stages"))
    ]
    return {Path(module.__file__).resolve() for module in modules if module.__file__}


def prior_file(recipe: Recipe) -> Path:
    """The file of the recipe's prior, made by weights/dvc.yaml."""
    return Path("weights") / f"{recipe.prior}.safetensors"
