"""Tables of the studies, on runs whose scores are written down by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from graph import ROOT, closure
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, ttest_rel
from study_records import study_scores

from roofseg.studies.report.tables import (
    agreement,
    by_seed,
    contrasts,
    gains,
    pairs,
    per_run,
    ranks,
    spread,
)

# The mean val IoU of each run: three attempts, four seeds.
IOUS = {"a": [0.70, 0.72, 0.71, 0.69], "b": [0.68, 0.73, 0.66, 0.67], "c": [0.5, 0.5, 0.52, 0.51]}


@pytest.fixture
def scores() -> pd.DataFrame:
    return pd.concat(
        study_scores(attempt=name, seed=seed, ious=[iou - 0.1, iou + 0.1])
        for name, ious in IOUS.items()
        for seed, iou in enumerate(ious, start=1)
    )


def test_every_run_is_a_row_with_its_mean_over_tiles(scores: pd.DataFrame) -> None:
    table = per_run(scores)
    assert list(table.val_iou) == pytest.approx([iou for ious in IOUS.values() for iou in ious])
    assert list(table.seed) == [1, 2, 3, 4] * 3


def test_the_spread_is_over_seeds(scores: pd.DataFrame) -> None:
    table = spread(scores, ["label"]).set_index("label")
    for name, ious in IOUS.items():
        row = table.loc[name]
        assert row.val_iou == pytest.approx(np.mean(ious))
        assert row.sd == pytest.approx(np.std(ious, ddof=1))
        assert (row["min"], row["max"]) == pytest.approx((min(ious), max(ious)))
        assert row.low < row.val_iou < row.high


def test_the_interval_of_an_iou_lies_between_0_and_1() -> None:
    runs = [
        study_scores(attempt="a", seed=seed, ious=[iou, iou + 0.02])
        for seed, iou in enumerate([0.1, 0.9])
    ]
    [row] = spread(pd.concat(runs), ["label"]).itertuples()
    assert (row.low, row.high) == (0, 1)


def test_gains_are_paired_by_seed_and_tile() -> None:
    """Effects of the seed and of the val tile cancel: each training tile adds 0.01 everywhere."""
    rng = np.random.default_rng(1)
    tiles, seeds = rng.random(6) / 2, rng.random(3) / 4
    runs = [
        study_scores(attempt="a", seed=seed, tiles=count, ious=tiles + seeds[seed] + 0.01 * count)
        for count in (24, 5, 12)
        for seed in range(3)
    ]
    found = gains(pd.concat(runs))
    assert found[["label", "than", "tiles"]].to_numpy().tolist() == [["a", 5, 12], ["a", 5, 24]]
    assert found.difference.tolist() == pytest.approx([0.07, 0.19])
    assert found[["low", "high"]].isna().all(axis=None)  # nothing tells how wide they are
    assert list(found.verdict) == ["ahead", "ahead"]
    assert gains(pd.concat(runs[:3])).empty


def test_one_seed_has_no_spread(scores: pd.DataFrame) -> None:
    alone = spread(scores[scores.seed == 1], ["label"])
    assert alone.sd.isna().all()
    assert (alone["min"] == alone["max"]).all()


def test_ranks_are_counted_seed_by_seed(scores: pd.DataFrame) -> None:
    assert ranks(scores).loc["a"].tolist() == [3, 1, 0]
    assert ranks(scores).loc["b"].tolist() == [1, 3, 0]
    assert ranks(scores).loc["c"].tolist() == [0, 0, 4]


def test_the_agreement_is_the_mean_of_kendalls_tau_over_pairs_of_seeds(
    scores: pd.DataFrame,
) -> None:
    # Seed 2 ranks b before a: its tau with each of the other three seeds is 1/3.
    assert agreement(scores) == pytest.approx((3 * 1 + 3 / 3) / 6)
    rows = by_seed(scores).to_numpy()
    assert kendalltau(rows[0], rows[1]).statistic == pytest.approx(1 / 3)
    assert np.isnan(agreement(scores[scores.seed == 1]))
    # A seed in which all attempts are equal has no ranking, so it is left out.
    level = scores.assign(iou=scores.iou.where(scores.seed != 2, 0.3))
    assert agreement(level) == pytest.approx(1)


def test_pairs_are_compared_as_scipys_paired_t_test_does(scores: pd.DataFrame) -> None:
    table = pairs(scores)
    assert list(zip(table.one, table.other, strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    tests = [ttest_rel(IOUS[row.one], IOUS[row.other]) for row in table.itertuples()]
    order = np.argsort([test.pvalue for test in tests])
    for left, index in zip((3, 2, 1), order, strict=True):  # Holm: all three are rejected
        row = table.loc[index]
        assert row.p_value == pytest.approx(
            max(left * tests[index].pvalue, table.p_value[order[0]])
        )
        expected = tests[index].confidence_interval(1 - 0.05 / left)
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    for row in table.itertuples():
        gaps = np.subtract(IOUS[row.one], IOUS[row.other])
        assert row.difference == pytest.approx(gaps.mean())
        assert row.ahead == (gaps > 0).sum()
        assert row.noise == pytest.approx(min(1, gaps.var(ddof=1) / (gaps**2).mean()))


@given(
    st.floats(0.02, 0.2),
    st.lists(st.floats(-0.01, 0.01), min_size=3, max_size=6).filter(lambda s: np.ptp(s) > 1e-4),
)
def test_noise_is_the_share_of_seed_noise_in_a_gap(gap: float, noise: list[float]) -> None:
    def frame(shares: list[float]) -> pd.DataFrame:
        runs = [
            study_scores(attempt=name, seed=seed, ious=[0.5 + (name == "a") * share])
            for seed, share in enumerate(shares)
            for name in "ab"
        ]
        return pairs(pd.concat(runs))

    steady, noisy = frame([gap] * len(noise)), frame([gap + each for each in noise])
    assert steady.noise[0] == pytest.approx(0, abs=1e-9)
    assert 0 < noisy.noise[0] < 1
    only_noise = frame([each - np.mean(noise) for each in noise])
    assert only_noise.noise[0] == pytest.approx(1)


def augmented(preference: dict[str, float], tile_noise: float) -> pd.DataFrame:
    """Runs under two presets: the strong one lowers the IoU of an attempt by its ``preference``."""
    rng = np.random.default_rng(4)
    return pd.concat(
        study_scores(
            attempt=name,
            seed=seed,
            augmentation=preset,
            ious=0.6 - lost * (preset == "heavy") + tile_noise * rng.normal(size=6),
        )
        for name, lost in preference.items()
        for seed in (1, 2, 3)
        for preset in ("light", "heavy")
    )


@pytest.mark.parametrize(
    ("frozen", "unfrozen", "noise", "answer"),
    [
        (0.2, 0.05, 0.01, "yes"),
        (0.05, 0.2, 0.01, "no"),
        (0.1, 0.1, 0.05, "open"),
        (0.12, 0.1, 0.05, "open"),
    ],
)
def test_the_hypothesis_is_answered_by_an_interval(
    frozen: float, unfrozen: float, noise: float, answer: str
) -> None:
    table = contrasts(
        augmented({"cold": frozen, "warm": unfrozen}, noise),
        **{"frozen": ["cold"], "unfrozen": "warm", "mild": ["light"], "strong": ["heavy"]},
    )
    assert list(table.label) == ["cold", "warm", "cold"]
    assert list(table.than) == ["", "", "warm"]
    assert table.answer.iloc[-1] == answer
    above, below = table.low > 0, table.high < 0
    assert list(table.answer) == list(np.select([above, below], ["yes", "no"], "open"))
    assert table.difference.iloc[-1] == pytest.approx(
        table.difference.iloc[0] - table.difference.iloc[1]
    )
    assert table.difference.iloc[-1] == pytest.approx(frozen - unfrozen, abs=4 * noise)


def test_runs_are_paired_by_seed_and_tile() -> None:
    """A difference that is the same on every tile has an interval without width."""
    tiles = np.array([0.3, 0.5, 0.8])
    runs = [
        study_scores(
            attempt=name,
            seed=seed,
            augmentation=preset,
            ious=tiles + 0.02 * seed - (preset == "heavy") * (tiles / 10 + (name == "cold") / 20),
        )
        for name in ("cold", "warm")
        for seed in (1, 2)
        for preset in ("heavy", "light")
    ]
    table = contrasts(
        pd.concat(runs),
        **{"frozen": ["cold"], "unfrozen": "warm", "mild": ["light"], "strong": ["heavy"]},
    )
    paired = table.iloc[-1]
    assert paired.difference == pytest.approx(0.05)
    assert np.isnan([paired.low, paired.high]).all()  # nothing tells how wide it is
    assert table.high.iloc[0] - table.low.iloc[0] > 0.01


def test_the_tables_start_without_torch() -> None:
    """Gathering a study does not import torch, which takes seconds."""
    imports = {file.read_text() for file in closure(ROOT / "stages" / "gather_study.py")}
    assert not any("\nimport torch" in text or "\nfrom torch" in text for text in imports)
