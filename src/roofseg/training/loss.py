"""The training loss: a weighted sum of binary cross-entropy and Dice."""

from __future__ import annotations

import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import nn


class BceDiceLoss(nn.Module):
    """``bce_weight`` * BCE + (1 - ``bce_weight``) * Dice on logits.

    Dice pools over the batch and is 0 for a batch without any building; only BCE then punishes
    false positives, so a weight of 0 is for data where every batch has buildings.
    """

    def __init__(self, bce_weight: float) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.bce = nn.BCEWithLogitsLoss()
        self.dice = DiceLoss("binary", from_logits=False)

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Logits and truth {0, 1} of shape (B, 1, H, W), float; gives a scalar.

        Computed in float32 whatever the model's precision: sums over a batch's pixels (10^6 at
        4 x 512 px) do not fit the 8 bits of a bfloat16 mantissa.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits, truth = logits.float(), truth.float()
            bce = self.bce(logits, truth)
            dice = self.dice(logits.sigmoid(), truth)
        return self.bce_weight * bce + (1.0 - self.bce_weight) * dice
