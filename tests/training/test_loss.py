from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from roofseg.core.images import UNKNOWN
from roofseg.training.loss import BceDiceLoss


def dice(probabilities: torch.Tensor, truth: torch.Tensor) -> float:
    """1 - 2 |P T| / (|P| + |T|), pooled over the batch."""
    return float(1 - 2 * (probabilities * truth).sum() / (probabilities + truth).sum())


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 1, 8, 8, generator=generator)
    return logits, (torch.rand(2, 1, 8, 8, generator=generator) < 0.3).float()


def test_known_values() -> None:
    truth = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    undecided = torch.zeros(1, 1, 2, 2)  # p = 0.5: BCE = log 2, Dice = 1 - 2 * 1 / (2 + 2)
    assert BceDiceLoss(1.0)(undecided, truth).item() == pytest.approx(math.log(2))
    assert BceDiceLoss(0.0)(undecided, truth).item() == pytest.approx(0.5)
    assert BceDiceLoss(0.5)(undecided, truth).item() == pytest.approx((math.log(2) + 0.5) / 2)
    assert BceDiceLoss(0.5)((truth - 0.5) * 200, truth).item() == pytest.approx(0, abs=1e-6)
    assert BceDiceLoss(0.0)((0.5 - truth) * 200, truth).item() == pytest.approx(1)
    assert BceDiceLoss(1.0)((0.5 - truth) * 200, truth).item() == pytest.approx(100)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_the_loss_is_the_weighted_sum(weight: float) -> None:
    logits, truth = batch()
    bce = binary_cross_entropy_with_logits(logits, truth).item()
    expected = weight * bce + (1 - weight) * dice(logits.sigmoid(), truth)
    assert BceDiceLoss(weight)(logits, truth).item() == pytest.approx(expected, rel=1e-5)


def test_dice_pools_the_batch() -> None:
    logits, truth = batch()
    truth[1] = 0
    apart = [dice(logits[[i]].sigmoid(), truth[[i]]) for i in range(2)]
    pooled = BceDiceLoss(0.0)(logits, truth).item()
    assert pooled == pytest.approx(dice(logits.sigmoid(), truth), rel=1e-5)
    assert abs(pooled - sum(apart) / 2) > 0.02


def test_dice_of_a_batch_without_building_is_zero() -> None:
    logits, _ = batch()
    logits.requires_grad_(True)
    truth = torch.zeros(2, 1, 8, 8)
    loss = BceDiceLoss(0.0)(logits, truth)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
    # There only BCE punishes false positives.
    assert BceDiceLoss(0.5)(logits, truth).item() > 0


def test_half_precision_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1, 128, 128, generator=generator).bfloat16()
    truth = (torch.rand(4, 1, 128, 128, generator=generator) < 0.1).to(torch.uint8)
    loss = BceDiceLoss(0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(logits, truth)
    assert found.dtype == torch.float32
    # Sums over 65,536 pixels: bfloat16 would be off in the second digit.
    assert found.item() == pytest.approx(loss(logits.double(), truth).item(), rel=1e-6)
    assert torch.is_autocast_enabled("cpu") is False


def test_gradient_descent_moves_towards_the_truth() -> None:
    logits, truth = batch()
    logits.requires_grad_(True)
    BceDiceLoss(0.5)(logits, truth).backward()
    assert (logits.grad[truth == 1] < 0).all()
    assert (logits.grad[truth == 0] > 0).all()


class TestUnknown:
    """Batches some of whose pixels nobody has labelled."""

    @pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
    def test_the_loss_is_that_of_the_known_pixels(self, weight: float) -> None:
        logits, truth = batch()
        known = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.6
        found = BceDiceLoss(weight)(logits, torch.where(known, truth, UNKNOWN))
        alone = BceDiceLoss(weight)(logits[known][None, None], truth[known][None, None])
        assert found.item() == alone.item()

    def test_predictions_under_unknown_pixels_do_not_matter(self) -> None:
        logits, truth = batch()
        truth[:, :, 2:5] = UNKNOWN
        results = []
        for value in (-1e4, 0.0, math.nan):
            own = logits.clone()
            own[:, :, 2:5] = value
            own.requires_grad_(True)
            loss = BceDiceLoss(0.5)(own, truth)
            loss.backward()
            assert not own.grad[:, :, 2:5].any()
            results.append((loss.item(), own.grad[truth != UNKNOWN].tolist()))
        assert results[0] == results[1] == results[2]

    def test_a_batch_without_known_pixels_teaches_nothing(self) -> None:
        logits, truth = batch()
        logits.requires_grad_(True)
        loss = BceDiceLoss(0.5)(logits, torch.full_like(truth, UNKNOWN).to(torch.uint8))
        loss.backward()
        assert loss.item() == 0
        assert not logits.grad.any()

    def test_a_flip_changes_nothing(self) -> None:
        logits, truth = batch()
        truth[1, :, :, 3:] = UNKNOWN
        loss = BceDiceLoss(0.5)
        flipped = loss(logits.flip(3), truth.flip(3)).item()
        assert flipped == pytest.approx(loss(logits, truth).item(), rel=1e-6)
