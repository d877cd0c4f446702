"""What the runs of a study say together: means and spread, ranks over seeds, contrasts of presets.

Every run is scored on the same val tiles, and all attempts of a study are trained from the same
seeds. So two attempts are compared seed by seed and tile by tile.

Sources:
    M. G. Kendall, A New Measure of Rank Correlation, Biometrika 30 (1/2), 1938: tau.
    "Student", The Probable Error of a Mean, Biometrika 6 (1), 1908: the t interval of paired
        differences.
    X. Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021: why
        seeds and data are both to be sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roofseg.core.errors import UserError
from roofseg.core.files import read_json
from roofseg.metrics import f1, iou
from roofseg.recipe.params import PatchSettings, Recipe
from roofseg.results.intervals import CONFIDENCE
from roofseg.studies.report.random_effects import crossed_interval

GAINS = ["label", "than", "tiles", "difference", "low", "high"]
PAIRS = ["one", "other", "seeds", "difference", "sd", "low", "high", "ahead", "noise"]
RUN = ["label", "tiles", "augmentation", "seed"]
"""What tells the runs of a study apart; ``label`` is the attempt's, as plots show it."""

Floats = npt.NDArray[np.float64]


def read_run(path: Path, target: str) -> pd.DataFrame:
    """Read the record of a run (`stages.study_run`): one row per val tile.

    Columns: attempt, label, tiles (number of training tiles), augmentation, seed, epochs (at most)
    and draws (per epoch), best_epoch (from 1), failure (empty, or why the run broke off), tile, iou
    and f1. Raises UserError for a missing or broken file, naming the DVC ``target`` that makes it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Run `dvc repro studies/dvc.yaml:{target}`.")
    record = read_json(path)
    recipe, result = record["recipe"], record["result"]
    counts = pd.DataFrame(record["val"])
    return pd.DataFrame(
        {
            "attempt": record["attempt"],
            "label": record["label"],
            "tiles": len(record["train_tiles"]),
            "augmentation": recipe["augmentation"],
            "seed": recipe["seed"],
            "epochs": recipe["epochs"],
            "draws": recipe["draws_per_epoch"],
            "best_epoch": result["best_epoch"],
            "failure": result["failure"] or "",
            "tile": counts.tile,
            "iou": iou(counts.tp, counts.fp, counts.fn),
            "f1": f1(counts.tp, counts.fp, counts.fn),
        }
    )


def is_run_of(record: Mapping[str, Any], recipe: Recipe, patches: PatchSettings) -> bool:
    """Whether the record of a run is of this recipe, resolved, and of these patches."""
    found = tuple(record.get(key) for key in ("dataset", "patch_size", "recipe"))
    return found == (patches.dataset, patches.patch_size, recipe.model_dump(mode="json"))


def per_run(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per run, in the given order: `RUN`, best_epoch, failure, val_iou, val_f1 (means)."""
    groups = scores.groupby([*RUN, "best_epoch", "failure"], sort=False)
    return groups.agg(val_iou=("iou", "mean"), val_f1=("f1", "mean")).reset_index()


def spread(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The val IoU of runs that differ in their seed alone.

    Args:
        scores: rows of `read_run`.
        by: columns of `RUN` that tell the groups apart.

    Returns:
        One row per group, in the given order, with columns ``by``, then: seeds (how many), val_iou
        (mean over seeds of the mean over tiles), sd (over seeds; NaN for one), min, max, and low
        and high, the 95 % interval over seeds and tiles (`report.random_effects`), within [0, 1].
    """
    rows = []
    for key, group in scores.groupby(list(by), sort=False):
        table = by_tile(group)
        means = table.mean(axis=1)
        found = crossed_interval(table)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "seeds": len(means),
                "val_iou": found.value,
                "sd": means.std(ddof=1) if len(means) > 1 else np.nan,
                "min": means.min(),
                "max": means.max(),
                "low": np.clip(found.low, 0, 1),
                "high": np.clip(found.high, 0, 1),
            }
        )
    return pd.DataFrame(rows)


def gains(scores: pd.DataFrame) -> pd.DataFrame:
    """What more training tiles bring, paired: each number of tiles minus the smallest.

    Returns:
        One row per label and number of tiles but the smallest, with columns label, than (the
        smallest), tiles; difference (mean IoU), and low and high, its 95 % interval over seeds and
        tiles (`roofseg.studies.report.random_effects`).
    """
    rows = []
    for label, own in scores.groupby("label", sort=False):
        than, *others = sorted(own.tiles.unique())
        for tiles in others:
            found = crossed_interval(
                by_tile(own[own.tiles == tiles]) - by_tile(own[own.tiles == than])
            )
            rows.append(
                {
                    **{"label": label, "than": than, "tiles": tiles},
                    **{"difference": found.value, "low": found.low, "high": found.high},
                }
            )
    return pd.DataFrame(rows, columns=GAINS)


def by_tile(scores: pd.DataFrame) -> Floats:
    """The IoU of the runs of one group as a table of seeds by val tiles, both sorted."""
    return scores.pivot(index="seed", columns="tile", values="iou").to_numpy(np.float64)


def by_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """The val IoU as a table of seeds by labels, these in the given order."""
    means = scores.groupby(["seed", "label"], sort=False).iou.mean().unstack()
    return means[scores.label.unique()]


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """How often each attempt came first, second, ... among the attempts of a seed.

    Returns:
        A row per label, a column per rank (1 is best), whole numbers; equals share the better rank.
    """
    table = by_seed(scores)
    places = table.rank(axis=1, method="min", ascending=False).astype(int)
    counted = {rank: (places == rank).sum() for rank in range(1, table.shape[1] + 1)}
    return pd.DataFrame(counted)


def agreement(scores: pd.DataFrame) -> float:
    """How alike two seeds order the attempts: Kendall's tau-b, the mean over all pairs of seeds.

    1 where every seed gives the same order, about 0 where the seed decides it. Seeds in which all
    attempts are equal give none, and are left out; NaN where that leaves nothing to compare.
    """
    from scipy.stats import kendalltau  # seconds

    ordered = [row for row in by_seed(scores).to_numpy() if np.ptp(row)]
    taus = [kendalltau(one, other).statistic for one, other in combinations(ordered, 2)]
    return float(np.mean(taus)) if taus else float("nan")


def pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Every two attempts compared over seeds, the better one first.

    Returns:
        Columns: one, other, seeds; difference (mean over seeds of the val IoU of ``one`` minus that
        of ``other``, trained from the same seed); sd of it over seeds; low and high, its 95 %
        interval by Student's t, for other seeds and these tiles; ahead (the seeds in which ``one``
        was better); noise, the share of seed noise in the gap that a single seed shows:
        sd^2 / mean(difference^2), at most 1. Where it is 0 every seed shows the same gap; where it
        is 1 the gap of a seed says nothing about the next.
    """
    from scipy.stats import t  # seconds

    table = by_seed(scores)
    order = table.mean().sort_values(ascending=False, kind="stable").index
    rows = []
    for one, other in combinations(order, 2):
        gaps = (table[one] - table[other]).to_numpy()
        mean, sd, square = gaps.mean(), gaps.std(ddof=1), (gaps**2).mean()
        half = t.ppf((1 + CONFIDENCE) / 2, len(gaps) - 1) * sd / np.sqrt(len(gaps))
        rows.append(
            {
                "one": one,
                "other": other,
                "seeds": len(gaps),
                "difference": mean,
                "sd": sd,
                "low": mean - half,
                "high": mean + half,
                "ahead": int((gaps > 0).sum()),
                "noise": min(1.0, sd**2 / square) if square else 1.0,
            }
        )
    return pd.DataFrame(rows, columns=PAIRS)


def contrasts(
    scores: pd.DataFrame,
    *,
    frozen: Sequence[str],
    unfrozen: str,
    mild: Sequence[str],
    strong: Sequence[str],
) -> pd.DataFrame:
    """Whether frozen encoders prefer a milder augmentation than an unfrozen one does.

    The *preference* of an attempt is its mean IoU under the ``mild`` presets minus that under the
    ``strong`` ones. The hypothesis says that it is larger for a frozen encoder.

    Args:
        scores: rows of `read_run`.
        frozen, unfrozen: names of attempts.
        mild, strong: names of presets.

    Returns:
        A row for the preference of each attempt (``than`` is empty), then one for each frozen one
        minus the unfrozen one, paired by seed and tile. Columns: label, than, difference, low and
        high (95 %, over seeds and tiles: `random_effects`), and answer: ``yes`` where the interval
        lies above 0, ``no`` where it lies below, ``open`` where it holds 0.
    """
    labels = dict(zip(scores.attempt, scores.label, strict=True))
    preference = {
        attempt: _mean_over(scores, attempt, mild) - _mean_over(scores, attempt, strong)
        for attempt in [*frozen, unfrozen]
    }
    rows = [_contrast(labels[name], "", table) for name, table in preference.items()]
    rows += [
        _contrast(labels[name], labels[unfrozen], preference[name] - preference[unfrozen])
        for name in frozen
    ]
    return pd.DataFrame(rows)


def _mean_over(scores: pd.DataFrame, attempt: str, presets: Sequence[str]) -> Floats:
    """(seeds, tiles): the IoU of an attempt, mean over presets."""
    own = scores[scores.attempt == attempt]
    return np.mean([by_tile(own[own.augmentation == preset]) for preset in presets], axis=0)


def _contrast(label: str, than: str, table: Floats) -> Mapping[str, Any]:
    found = crossed_interval(table)
    answer = "yes" if found.low > 0 else "no" if found.high < 0 else "open"
    return {
        **{"label": label, "than": than, "difference": found.value},
        **{"low": found.low, "high": found.high, "answer": answer},
    }
