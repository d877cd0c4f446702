"""The methods that docs/statistics.md compares, against scipy and the library's verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from graph import ROOT
from scipy import stats

from benchmarks import coverage
from roofseg.results.folds import compare_pairs_of_folds
from roofseg.results.verdicts import compare_pairs, compare_with_best
from roofseg.studies.folds import fold_split


def test_the_sign_flip_test_is_scipys() -> None:
    sample = np.random.default_rng(0).normal(0.3, 1, 7)
    test = stats.permutation_test(
        (sample, np.zeros(7)),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    [found] = coverage.flip_p_values(sample[None])
    assert found == pytest.approx(test.pvalue)


@pytest.mark.parametrize("tiles", [6, 9])
def test_its_interval_has_the_means_that_it_does_not_reject(tiles: int) -> None:
    sample = np.random.default_rng(tiles).normal(0, 1, tiles)
    [low], [high] = coverage.sign_flips(sample[None])
    for mean, inside in ((low, True), (high, True), (low, False), (high, False)):
        step = 1e-6 * (1 if (mean == low) == inside else -1)
        [p_value] = coverage.flip_p_values((sample - mean - step)[None])
        assert (p_value > 0.05) == inside
    if tiles == 6:
        assert (low, high) == pytest.approx((sample.min(), sample.max()))


def test_the_simulated_verdicts_are_those_of_the_library() -> None:
    rng = np.random.default_rng(1)
    for scores in rng.normal([0.6, 0.62, 0.4, 0.5], 0.08, (8, 6, 4)):
        [behind] = coverage.behind_the_best(scores[None], coverage.t_p_values, "all pairs")
        order = np.argsort(-scores.mean(0))
        pairs = compare_pairs(pd.DataFrame(scores[:, order]))
        assert list(behind[1:]) == list(pairs[pairs.than == 0].verdict != "tie")
        [behind] = coverage.behind_the_best(scores[None], coverage.t_p_values, "with the best")
        with_best = compare_with_best(pd.DataFrame(scores[:, order]))
        assert list(behind[1:]) == list(with_best.verdict != "tie")


def test_the_p_values_of_folds_are_those_of_the_library() -> None:
    differences = np.random.default_rng(2).normal(0.5, 1, (4, 30))
    folds = pd.Series(np.repeat(np.arange(5), 6))
    for values, found in zip(differences, coverage.fold_p_values(5, differences), strict=True):
        scores = pd.DataFrame({"one": values, "other": np.zeros(30)})
        assert compare_pairs_of_folds(scores, folds).p_value[0] == pytest.approx(found)


def test_the_simulated_folds_are_those_of_the_study() -> None:
    of_tile = np.repeat(np.arange(5), 2)
    numbered = {str(tile): int(fold) + 1 for tile, fold in enumerate(of_tile)}
    for fold in range(5):
        split = fold_split(numbered, fold + 1)
        for tiles, part in zip(
            coverage.parts(of_tile, fold), ("train", "val", "test"), strict=True
        ):
            assert [str(tile) for tile in tiles] == [t for t in split if split[t] == part]


def test_the_fold_that_chooses_takes_the_epoch_that_fits_it_best() -> None:
    fitted = np.ones((3, 2))
    truth = np.array([[-1.0, 0.0], [0.7, 0.8], [9.0, 1.0]])
    assert list(coverage.chosen_epoch(fitted, truth)) == [1 / 2, 3 / 4, 15 / 16]


def test_the_tables_are_between_the_marks_of_the_page() -> None:
    page = coverage.PAGE.read_text(encoding="utf-8")
    for name in coverage.TABLES:
        start, end = f"<!-- {name} -->\n\n| ", f"|\n\n<!-- end of {name} -->"
        assert start in page
        assert page.index(start) < page.index(end)
    changed = coverage.between_marks(page, "scores", ["a table"])
    assert "<!-- scores -->\n\na table\n\n<!-- end of scores -->" in changed
    assert coverage.between_marks(changed, "scores", ["a table"]) == changed
    assert coverage.PAGE.is_relative_to(ROOT)
