"""What the stages that train share: their inputs, and the process, disk and GPUs that they take."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roofseg.core.errors import StoppedError, UserError
from roofseg.models.device import claim_gpus, resolve_device, visible_gpus
from roofseg.recipe.params import Machine, Recipe
from roofseg.training.stopping import is_orphan
from stages import PARENT


def parent() -> int | None:
    """The process whose end is the training's too: that of DVC, where DVC started it."""
    return PARENT if "DVC_STAGE" in os.environ else None


def check_parent() -> None:
    """Keep the state of a finished run whose outputs nobody waits for."""
    if is_orphan(parent()):
        raise StoppedError(
            "stopped: dvc, which started it, is gone. The finished run is kept.", 143
        )


@contextmanager
def written() -> Iterator[None]:
    """Say what a file or folder that cannot be written means for the run."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the run cannot be written: {error}. Make room or mend the permissions; the same "
            "command goes on after the last epoch that is kept."
        ) from error


def state_root() -> Path:
    """Where runs are kept after every epoch: in this project, or in ROOFSEG_STATE_DIR.

    An experiment in a folder of its own (--temp, --queue) has DVC_ROOT, the project that it came
    from, where a run outlives that folder.
    """
    folder = os.environ.get("ROOFSEG_STATE_DIR")
    if folder:
        return Path(folder).expanduser().resolve()
    return Path(os.environ.get("DVC_ROOT", "."), ".state")


@contextmanager
def own_gpus(machine: Machine) -> Iterator[list[int] | None]:
    """The GPUs that this training takes, which no other training on this machine has."""
    if resolve_device(machine.device) != "cuda":
        yield None
        return
    visible = visible_gpus()
    with claim_gpus(visible, machine.devices, Path(tempfile.gettempdir())) as gpus:
        # For the further processes of this run, one per device, which look for themselves.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(f"GPU-{visible[index]}" for index in gpus)
        yield gpus


def code() -> set[Path]:
    """The files of this project's packages that the process has imported."""
    modules = [
        module for key, module in sys.modules.items() if key.startswith(("roofseg", "stages"))
    ]
    return {Path(module.__file__).resolve() for module in modules if module.__file__}


def prior_file(recipe: Recipe) -> Path:
    """The file that weights/dvc.yaml makes for the recipe's prior."""
    return Path("weights") / f"{recipe.prior}.safetensors"
