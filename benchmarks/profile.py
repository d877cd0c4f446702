"""Which parts of an epoch take how long: ``python -m benchmarks profile ATTEMPT ...``.

Trains with the attempt's recipe in params.yaml and the project's patches, through the real engine,
with fewer draws and epochs, and with an encoder that the recipe thaws later thawed from the start.
Lightning's own profiler measures the times.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch.profilers import SimpleProfiler

from benchmarks.training import watch
from roofseg.patches import read_patches
from roofseg.recipe.params import Recipe
from roofseg.recipe.parsing import read_params

# The first epoch is a warm-up, and fills the feature cache of a frozen encoder.
EPOCHS, STEPS = 4, 8
PARTS = ("data", "forward", "backward", "optimizer", "validation", "logging, state", "the rest")
EPOCH = "run_training_epoch"  # as Lightning's profiler names it; validation is a part of it
PATCHES, WEIGHTS = Path("patches"), Path("weights")


def main(arguments: Sequence[str]) -> None:
    params = read_params(Path("params.yaml"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description=__doc__)
    parser.add_argument("attempts", nargs="*", help="attempts of params.yaml (default: all)")
    print(f"Seconds per epoch of {STEPS} training steps, and the share of each part.\n")
    print(f"| attempt | epoch, s | {' | '.join(PARTS)} |")
    print(f"| --- | ---: |{' ---: |' * len(PARTS)}")
    patches = read_patches(PATCHES / "train"), read_patches(PATCHES / "val")
    for attempt in parser.parse_args(arguments).attempts or params.attempts:
        recipe = params.recipe(attempt)
        profiler = SteadyEpochs()
        with tempfile.TemporaryDirectory() as folder:
            prior = WEIGHTS / f"{recipe.prior}.safetensors"
            watch(shrunk(recipe), params.machine(), patches, prior, Path(folder), profiler=profiler)
        seconds, spent = parts(profiler.recorded_durations)
        shares = " | ".join(f"{100 * spent[part] / seconds:.1f} %" for part in PARTS)
        print(f"| {attempt} | {seconds / (EPOCHS - 1):.2f} | {shares} |", flush=True)


def shrunk(recipe: Recipe) -> Recipe:
    freeze = recipe.freeze_epochs if recipe.freeze_epochs == "all" else 0
    draws = STEPS * recipe.batch_size
    return recipe.model_copy(
        update={"epochs": EPOCHS, "draws_per_epoch": draws, "freeze_epochs": freeze}
    )


class SteadyEpochs(SimpleProfiler):
    """A profiler that drops the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0

    def start(self, action_name: str) -> None:
        if action_name == EPOCH:
            self.epochs += 1
            if self.epochs == 2:
                self.recorded_durations.clear()
        super().start(action_name)


def parts(durations: Mapping[str, Sequence[float]]) -> tuple[float, dict[str, float]]:
    """Seconds of all epochs, and of each of ``PARTS``, from what Lightning's profiler recorded."""

    def spent(*endings: str, by: str = "[") -> float:
        return sum(
            sum(seconds)
            for action, seconds in durations.items()
            if action.startswith(by) and action.endswith(endings)
        )

    around = ("on_train_epoch_start", "on_train_epoch_end", "on_train_end")
    seconds = sum(durations[EPOCH]) + spent(*around)
    found = {
        "data": spent("train_dataloader_next", "batch_to_device"),
        "forward": spent(".training_step"),
        "backward": spent(".backward"),
        "validation": spent(".validation_step", ".val_next")
        + spent("on_validation_start", "on_validation_epoch_start", by="[LightningModule]"),
        "logging, state": spent("", by="[Callback]"),
    }
    # Lightning's optimizer step includes forward and backward.
    found["optimizer"] = (
        spent("optimizer_step", by="[LightningModule]") - found["forward"] - found["backward"]
    )
    return seconds, {**found, "the rest": seconds - sum(found.values())}
