"""The plain training loop as a baseline: ``python -m benchmarks.plain FOLDER``.

A straightforward first version: float32, NCHW, each patch read and decoded at every draw. It does a
step for each line on stdin and prints its seconds. It has its own process, in which the settings
that the library makes for its process are not made.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn

from roofseg.training.augment import Augmenter

ENCODER, BATCH = "resnet34", 4
MEAN, STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]


def main(folder: Path) -> None:
    files = sorted(folder.glob("*.jpg"))
    augment = Augmenter("medium")
    model = smp.Unet(ENCODER, encoder_weights=None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    bce, dice = nn.BCEWithLogitsLoss(), smp.losses.DiceLoss("binary")

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        file = random.choice(files)
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(file.with_suffix(".png")), cv2.IMREAD_GRAYSCALE) // 255
        image, mask = augment(image, mask, random.getrandbits(63))
        rgb = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        return (rgb - MEAN) / STD, torch.from_numpy(mask)[None].float()

    for _ in sys.stdin:
        start = time.perf_counter()
        images, truth = map(torch.stack, zip(*(draw() for _ in range(BATCH)), strict=True))
        optimizer.zero_grad()
        logits = model(images)
        loss = 0.5 * bce(logits, truth) + 0.5 * dice(logits, truth)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
