"""One training run, for test_ddp to start with one or two processes.

python ddp_run.py FOLDER DEVICES MODEL: every process writes what it ended with to FOLDER.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from small_run import SMALL_VIT, TRAIN, VAL, P, fit, machine, recipe

from roofseg.core.weights import write_weights
from roofseg.models.roof_model import RoofModel, build_model
from roofseg.training.data import PatchBatches
from roofseg.training.engine import _callbacks, _strategy
from roofseg.training.segmenter import Segmenter


class Convolution(torch.nn.Conv2d):
    """An encoder without BatchNorm."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [super().forward(x).relu()]


class Head(torch.nn.Conv2d):
    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return super().forward(features[0])


def main() -> None:
    folder, devices, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.manual_seed(5)
    changes = {"epochs": 4, "draws_per_epoch": 12, "batch_size": 4, "freeze_epochs": 2}
    if name == "pixelwise":
        # The BCE of a batch is the mean of the BCEs of its shares. This is not true of Dice, and
        # BatchNorm sees one share alone.
        changes |= {"bce_weight": 1.0, "dropout": 0.0, "scheduler": "cosine"}
        half = (0.5, 0.5, 0.5)
        model = RoofModel(
            Convolution(3, 8, 3, padding=1), Head(8, 1, 1), mean=half, std=half, multiple=1
        )
    else:
        changes |= {"ema_decay": 0.5, "scheduler": "plateau", "plateau_patience": 0}
        if name == "lora":
            changes |= {**SMALL_VIT, "lora_rank": 4, "freeze_epochs": 1, "epochs": 2}
        given = recipe(**changes)
        model = build_model(given.architecture, given.encoder, dropout=0.2, patch_size=P)
        model.adapt(given.lora)
    small, on = recipe(**changes), machine(devices=devices)
    module = Segmenter(model, small)
    trainer = fit(
        module,
        PatchBatches(TRAIN, VAL, small),
        _callbacks(small, first=False),
        devices=devices,
        strategy=_strategy(on, small),
        max_epochs=small.epochs,
        use_distributed_sampler=False,
    )
    write_weights(folder / f"{trainer.global_rank}.safetensors", model.state_dict())
    seen = {key: float(value) for key, value in trainer.callback_metrics.items()}
    lr = trainer.optimizers[0].param_groups[0]["lr"]
    record = {"lr": lr, "steps": trainer.global_step, "tiles": module.val_tiles, **seen}
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(record))


main()
