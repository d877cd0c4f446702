"""The training loss: a weighted sum of binary cross-entropy and Dice."""

from __future__ import annotations

import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import nn

from roofseg.core.images import UNKNOWN


class BceDiceLoss(nn.Module):
    """``bce_weight`` * BCE + (1 - ``bce_weight``) * Dice on logits, over the pixels that are known.

    Dice is computed over the whole batch, and is 0 for a batch without buildings, where only BCE
    penalises false positives. So set ``bce_weight`` to 0 only if every batch has buildings.
    """

    def __init__(self, bce_weight: float) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.bce = nn.BCEWithLogitsLoss()
        self.dice = DiceLoss("binary", from_logits=False)

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The scalar loss of logits and truth {0, 1, `UNKNOWN`}, both (B, 1, H, W).

        Unknown pixels have no part in it; where no pixel is known, loss and gradient are 0.
        It is computed in float32 whatever the model's precision: the 8 significant bits of bfloat16
        are too few for sums over the pixels of a batch (10^6 for four patches of 512 px).
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits, known = logits.float(), truth != UNKNOWN
            if not known.all():
                # Both losses are sums over pixels: those of the known ones, as one patch.
                logits, truth = logits[known][None, None], truth[known][None, None]
                if not truth.numel():
                    return logits.sum()
            truth = truth.float()
            bce = self.bce(logits, truth)
            dice = self.dice(logits.sigmoid(), truth)
        return self.bce_weight * bce + (1.0 - self.bce_weight) * dice
