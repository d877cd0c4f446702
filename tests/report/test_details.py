from __future__ import annotations

import dataclasses

import pytest
from small_entries import board, entry

from roofseg.report.details import COST_COLUMNS, costs
from roofseg.report.leaderboard import cost_values

FAST = entry("fast", {"val": [0.8, 0.7]}, minutes=6)
SLOW = entry("slow", {"val": [0.5, 0.6]}, minutes=120, multiply_adds=400_000_000_000)


def test_costs_are_those_of_training_and_inference() -> None:
    fast, slow = cost_values(FAST), cost_values(SLOW)
    assert fast["iou_per_hour"] == pytest.approx(0.75 / 0.1)
    assert slow["iou_per_hour"] == pytest.approx(0.55 / 2)
    assert slow["multiply_adds_per_megapixel"] == 400_000_000_000
    assert (fast["peak_memory_gb"], fast["inference_megapixels_per_second"]) == (1.5, 2.345)
    assert (fast["epochs_run"], fast["seconds_per_epoch"], fast["minutes"]) == (3, 120, 6)
    assert set(COST_COLUMNS) <= fast.keys()


def test_the_section_names_the_devices() -> None:
    record = {
        **SLOW.record,
        "result": {**SLOW.training, "device": "cuda", "precision": "16-mixed"},
    }
    section = costs(board(FAST, dataclasses.replace(SLOW, record=record)))
    table = section.blocks[0]
    assert [str(cell) for cell in table.rows[1]] == [
        "slow", "6.00 M, 5.15 M trained", "400.0", "24.0", "2400.0", "120.0", "1.5", "2.35",
        "0.28",
    ]  # fmt: skip
    assert "ran on cpu (bf16-mixed) and cuda (16-mixed); an epoch" in table.caption
    assert "ran on cpu (32-true), without" in table.caption
    assert "224 x 224 px" in table.caption


def test_parameters_of_lora_are_told_apart() -> None:
    counts = {**SLOW.costs, "adapter_parameters": 150_000}
    section = costs(board(FAST, dataclasses.replace(SLOW, costs=counts)))
    cells = [str(row[1]) for row in section.blocks[0].rows]
    assert cells == ["6.00 M, 5.15 M trained", "6.00 M, 5.15 M trained, 0.15 M by LoRA"]


def test_a_training_without_measurable_time_has_no_rate() -> None:
    instant = entry("instant", {"val": [0.5]}, minutes=0.0)
    assert cost_values(instant)["iou_per_hour"] is None
    assert str(costs(board(instant)).blocks[0].rows[0][-1]) == "\N{EN DASH}"
