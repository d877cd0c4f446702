from __future__ import annotations

import dataclasses
import math

import pytest
from small_entries import entry

from roofseg.report.comparisons import compare_with_leader
from roofseg.report.cost_table import cost_table, cost_text
from roofseg.report.leaderboard import score_table

FAST = entry("fast", {"val": [0.8, 0.7]}, minutes=6)
SLOW = entry("slow", {"val": [0.5, 0.6]}, minutes=120, multiply_adds=400_000_000_000)


def test_costs_stand_beside_scores() -> None:
    order = [FAST, SLOW]
    table = score_table(order, compare_with_leader(order))
    costs = cost_table(order, table)
    fast, slow = costs.to_dict("records")
    assert (fast["attempt"], slow["attempt"]) == ("fast", "slow")
    assert fast["iou_per_hour"] == pytest.approx(0.75 / 0.1)
    assert slow["iou_per_hour"] == pytest.approx(0.55 / 2)
    assert slow["multiply_adds_per_megapixel"] == 400_000_000_000
    assert (fast["peak_memory_gb"], fast["inference_megapixels_per_second"]) == (1.5, 2.345)
    assert (fast["epochs_run"], fast["seconds_per_epoch"], fast["minutes"]) == (3, 120, 6)
    for column in ("val_iou", "val_iou_low", "val_iou_high", "val_standing"):
        assert list(costs[column]) == list(table[column]), column
    assert not costs.drop(columns=["attempt", "label", "val_standing"]).isna().any(axis=None)


def test_the_page_says_on_what_it_was_measured() -> None:
    gpu = {**SLOW.training, "device": "cuda", "precision": "16-mixed"}
    order = [FAST, dataclasses.replace(SLOW, training=gpu)]
    text = cost_text(cost_table(order, score_table(order, compare_with_leader(order))), order)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    slow = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert slow == [
        "slow", "6.00 M", "5.15 M", "400.0", "24.0", "2400.0", "3", "120.0", "1.5", "2.35",
        "0.550", "0.28",
    ]  # fmt: skip
    assert "on cpu (bf16-mixed), cuda (16-mixed); an epoch" in text
    assert "per second on cpu (32-true), without" in text
    assert "224 x 224 px" in text


def test_a_training_that_took_no_time_to_speak_of_has_no_rate() -> None:
    instant = [entry("instant", {"val": [0.5]}, minutes=0.0)]
    costs = cost_table(instant, score_table(instant, compare_with_leader(instant)))
    assert math.isnan(costs.iou_per_hour[0])
    assert "nan" not in cost_text(costs, instant)
