"""The training loss: a weighted sum of binary cross-entropy and Dice."""

from __future__ import annotations

import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import nn


class BceDiceLoss(nn.Module):
    """``bce_weight`` * BCE + (1 - ``bce_weight``) * Dice on logits.

    Dice pools over the batch and is 0 for a batch without buildings, where only BCE punishes false
    positives. So use a weight of 0 only if every batch has buildings.
    """

    def __init__(self, bce_weight: float) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.bce = nn.BCEWithLogitsLoss()
        self.dice = DiceLoss("binary", from_logits=False)

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The scalar loss of logits and truth {0, 1}, both (B, 1, H, W).

        Computed in float32 whatever the model's precision: sums over a batch's pixels (10^6 at
        4 x 512 px) do not fit into the 8 bits of a bfloat16 mantissa.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits, truth = logits.float(), truth.float()
            bce = self.bce(logits, truth)
            dice = self.dice(logits.sigmoid(), truth)
        return self.bce_weight * bce + (1.0 - self.bce_weight) * dice
