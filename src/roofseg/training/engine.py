"""Train one attempt, from the prior to the best weights; `Segmenter` computes the steps."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from roofseg.core.errors import StoppedError, UserError, explain_system_error
from roofseg.core.weights import load_weights
from roofseg.models import lora
from roofseg.models.device import (
    is_out_of_memory,
    keep_freed_memory,
    processor,
    resolve_device,
    resolve_precision,
)
from roofseg.models.roof_model import RoofModel, build_model
from roofseg.patches import Patch
from roofseg.recipe.architectures import ARCHITECTURES
from roofseg.recipe.params import Machine, Recipe
from roofseg.training.callbacks import EpochReport, PredictionVisualizer, StepBar
from roofseg.training.data import PatchBatches
from roofseg.training.prior import load_prior
from roofseg.training.resume import DurableCheckpoints, KeepState, is_first_process
from roofseg.training.segmenter import NotFiniteError, Segmenter
from roofseg.training.stopping import StopBetweenSteps, signal_of_worker, stopped_by

# How torch's warnings name an operation without a deterministic algorithm.
NONDETERMINISTIC = re.compile(
    r"(\w[\w:. ]*?) (?:does not have a deterministic impl|defaults to a non-deterministic algo)"
)


class EarlyStoppingAfterThaw(EarlyStopping):
    """Early stopping that ignores the epochs before the thaw.

    After the thaw a run trains for at least ``patience`` epochs.
    """

    def __init__(self, thaw_epoch: int, patience: int) -> None:
        super().__init__("val/iou", mode="max", patience=patience, check_on_train_epoch_end=False)
        self.thaw_epoch = thaw_epoch

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.thaw_epoch:
            super().on_validation_end(trainer, pl_module)


@dataclass(frozen=True)
class Trained:
    """A finished run: the model with its best weights (by val IoU, over the whole run)."""

    model: RoofModel
    best_epoch: int  # counted from 1
    best_val_iou: float
    epochs_run: int
    device: str
    processor: str  # see `models.device.processor`
    precision: str
    nondeterministic: tuple[str, ...]  # operations without a deterministic algorithm on the device
    seconds: float  # of the whole run
    peak_memory_gb: float  # of the whole run
    thaws: bool  # whether the recipe ever trains the encoder
    adapters: int  # number of parameters that LoRA trained; they are merged into the model
    failure: NotFiniteError | None = None  # why the run ended early

    def record(self) -> dict[str, Any]:
        """The results without times and memory: the same for every run on one machine."""
        encoder = sum(p.numel() for p in self.model.encoder_parameters())
        decoder = sum(p.numel() for p in self.model.decoder_parameters())
        return {
            "best_epoch": self.best_epoch,
            "best_val_iou": self.best_val_iou,
            "epochs_run": self.epochs_run,
            "encoder_parameters": encoder,
            "decoder_parameters": decoder,
            "trainable_parameters": decoder + (self.adapters or (encoder if self.thaws else 0)),
            "adapter_parameters": self.adapters,
            "device": self.device,
            "processor": self.processor,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "nondeterministic_operations": list(self.nondeterministic),
            "failure": str(self.failure) if self.failure else None,
        }

    def times(self) -> dict[str, float]:
        """Values that differ between runs; the seconds per epoch include validation."""
        return {
            "minutes": round(self.seconds / 60, 2),
            "seconds_per_epoch": round(self.seconds / self.epochs_run, 2),
            "peak_memory_gb": round(self.peak_memory_gb, 2),
        }


def train(
    recipe: Recipe,
    *,
    attempt: str,
    train_patches: Sequence[Patch],
    val_patches: Sequence[Patch],
    prior: Path,
    machine: Machine,
    live: Path,
    overlays: Path,
    state: Path,
    parent: int | None = None,
    gpus: list[int] | None = None,
) -> Trained | None:
    """Train a recipe from its prior and return the best model.

    Args:
        recipe: the attempt's resolved recipe
        attempt: the attempt's name, for printed lines and titles
        train_patches, val_patches: patches of one size
        prior: safetensors file with the initial weights of the encoder, or of the whole model
        machine: the devices, workers, memory for features, and epochs between pictures
        live: folder for DVCLive's curves
        overlays: folder for pictures of val
        state: folder that keeps the run after every epoch (see `training.resume.locked_state`). If
            it holds a state, the run resumes from it and ends with the same result
        parent: number of the process whose end stops the run (see `training.stopping`)
        gpus: indices of the CUDA devices to use; the first ones if None

    Returns:
        The finished run. A run on several devices has one process per device, and all but the
        first return None.

    Raises:
        UserError: the prior does not fit; the device is missing or has too little memory; a folder
            cannot be written; the loss stops being finite before the first validation; an
            operation has no deterministic algorithm although the recipe is strict
        StoppedError: a signal ended the run; its finished epochs are kept
    """
    device = resolve_device(machine.device, machine.devices)
    precision = resolve_precision(recipe.precision, device)
    first = is_first_process()
    if first:
        print(
            f"{recipe.label(attempt)}  {precision} on {device} ({processor(device)}, "
            f"{torch.get_num_threads()} threads); another machine may round differently",
            flush=True,
        )
    if device == "cpu":
        keep_freed_memory()
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    # Deterministic mode also fills every new tensor with NaN: slow, and for debugging only.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    patch_size = train_patches[0].mask.shape[0]
    model = build_model(
        recipe.architecture,
        recipe.encoder,
        dropout=recipe.dropout,
        patch_size=patch_size,
        statistics=recipe.statistics,
    )
    load_prior(model, prior, with_decoder=recipe.prior_has_decoder)
    adapters = lora.count(model.encoder, recipe.lora)
    model.adapt(recipe.lora)
    initial = model.encoder.state_dict(prefix="encoder.")
    if recipe.thaw_epoch:  # training after the thaw changes these tensors in place
        initial = {name: value.clone() for name, value in initial.items()}
    module = Segmenter(
        model.to(memory_format=torch.channels_last), recipe, machine.feature_cache_gb
    )
    batches = PatchBatches(train_patches, val_patches, recipe, machine.workers)
    keep = KeepState(state)
    report = EpochReport(recipe.label(attempt), live if first else None)
    pictures = PredictionVisualizer(
        recipe.label(attempt),
        overlays,
        every=machine.overlay_every if first else 0,
        epochs=recipe.epochs,
        state=state / "overlays",
    )
    stop = StopBetweenSteps(parent)
    failure = None
    checkpoint = keep.restore()
    if checkpoint and first:
        how = "writes the outputs of the run that ended" if keep.over else "resumes the run"
        print(f"{recipe.label(attempt)}  {how} after epoch {keep.epochs}", flush=True)
    with _quiet(keep.nondeterministic):
        modes = {"deterministic": "warn", "strict": True, "fast": False}
        trainer = L.Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            devices=gpus or machine.devices,
            strategy=_strategy(machine, recipe),
            precision=precision,  # type: ignore[arg-type]
            max_epochs=recipe.epochs,
            deterministic=modes[recipe.algorithms],  # type: ignore[arg-type]
            benchmark=recipe.algorithms == "fast",
            use_distributed_sampler=False,
            plugins=[DurableCheckpoints()],
            logger=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=[stop, keep, report, pictures, *_callbacks(recipe, first)],
        )
        try:
            with stop, report:
                trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
        except NotFiniteError as error:
            if not keep.best_epoch:
                raise
            failure = error
        except Exception as error:
            explained = _explain(error, stop, keep, recipe, patch_size)
            if explained is error:
                raise
            raise explained from error
    if not first:
        return None
    # Weights that were frozen at the best epoch still equal the initial ones.
    load_weights(
        model, {**initial, **keep.best_weights()}, f"{keep.folder}: not the weights of this run"
    )
    model.cpu().merge()
    trained = Trained(
        model=model.eval(),
        best_epoch=keep.best_epoch,
        best_val_iou=keep.best_val_iou,
        epochs_run=len(report.rows),
        device=device,
        processor=processor(device),
        precision=precision,
        nondeterministic=tuple(sorted(keep.nondeterministic)),
        seconds=report.seconds,
        peak_memory_gb=report.peak_memory_gb,
        thaws=recipe.thaw_epoch is not None,
        adapters=adapters,
        failure=failure,
    )
    print(
        f"{recipe.label(attempt)}  finished in {trained.seconds / 60:.1f} minutes: val IoU "
        f"{keep.best_val_iou:.4f}, the best, after epoch {keep.best_epoch} of {trained.epochs_run}",
        flush=True,
    )
    return trained


def _strategy(machine: Machine, recipe: Recipe) -> str:
    if machine.devices == 1 or machine.strategy not in ("auto", "ddp"):
        return machine.strategy
    # Plain DDP waits for every gradient. A frozen encoder has none, and the last layers of a ViT
    # have none where the decoder reads only its skips.
    waits = recipe.thaw_epoch == 0 and ARCHITECTURES[recipe.architecture] == "smp"
    return "ddp" if waits else "ddp_find_unused_parameters_true"


def _explain(
    error: Exception, stop: StopBetweenSteps, keep: KeepState, recipe: Recipe, patch_size: int
) -> Exception:
    """Turn known failures into actionable messages; return others unchanged."""
    kept = (
        f"Kept: {keep.epochs} of {recipe.epochs} epochs, in {keep.folder}; the same command "
        f"resumes with epoch {keep.epochs + 1}."
    )
    # A signal to a whole process group also ends the loader's workers, and the next step fails.
    lost_worker = isinstance(error, RuntimeError | OSError | EOFError)
    if number := signal_of_worker(error) or (stop.requested if lost_worker else None):
        error = stopped_by(number)
    if isinstance(error, StoppedError):
        return StoppedError(f"{error}. {kept}", error.status)
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        explained = explain_system_error(error)
        return UserError(f"{explained} {kept}") if explained else error
    text = str(error)
    if is_out_of_memory(error):
        return UserError(
            f"out of memory in epoch {keep.epochs + 1} ({text.partition('. ')[0]}), with "
            f"batch_size {recipe.batch_size}, patch_size {patch_size} and precision "
            f"{recipe.precision}; the features of a frozen encoder take up to feature_cache_gb "
            "more. Lower batch_size, patch_size or feature_cache_gb."
        )
    if text.startswith("DataLoader worker (pid"):
        return UserError(
            f"a process that augments patches has ended ({text.partition('. ')[0]}). The system "
            f"kills one when memory runs out: lower `workers` in params.yaml. {kept}"
        )
    if "does not have a deterministic implementation" in text:
        return UserError(
            f"algorithms: strict, but {text.splitlines()[0]} Set algorithms: deterministic (which "
            "warns instead) or fast."
        )
    return error


@contextmanager
def _quiet(nondeterministic: set[str]) -> Iterator[None]:
    """Silence Lightning's warnings about settings that are intended.

    If torch warns that an operation has no deterministic algorithm, add the operation to
    ``nondeterministic`` and print one line about it.
    """
    show = warnings.showwarning

    def collect(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        operation = NONDETERMINISTIC.match(str(message))
        if not operation:
            show(message, *args, **kwargs)
        elif operation[1] not in nondeterministic:
            nondeterministic.add(operation[1])
            print(f"note: {operation[1]} has no deterministic algorithm on this device", flush=True)

    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Val is a few dozen patches in memory and needs no workers.
        warnings.filterwarnings("ignore", ".*does not have many workers.*", PossibleUserWarning)
        # A frozen encoder is in eval mode.
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        # Lightning 2.6.6 calls a torch function that is deprecated in torch 2.14.
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")
        warnings.filterwarnings("always", NONDETERMINISTIC.pattern, UserWarning)
        warnings.showwarning = collect
        try:
            yield
        finally:
            logger.setLevel(level)


def _callbacks(recipe: Recipe, first: bool) -> list[Callback]:
    callbacks: list[Callback] = [
        EarlyStoppingAfterThaw(recipe.thaw_epoch or 0, recipe.early_stopping_patience)
    ]
    if recipe.ema_decay is not None:
        # Linear interpolation leaves constant weights (a frozen encoder) exactly as they are;
        # EMAWeightAveraging's weighted sum would round them at every step.
        average = get_ema_multi_avg_fn(recipe.ema_decay)
        callbacks.append(WeightAveraging(use_buffers=True, multi_avg_fn=average))
    if first:
        callbacks.append(StepBar())
    return callbacks
