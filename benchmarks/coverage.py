"""How often intervals and verdicts are right, by simulation: ``python -m benchmarks.coverage``.

Writes the tables of docs/statistics.md between its marks, or only those that are named; takes some
ten minutes on two cores. The same versions of NumPy and SciPy give the same tables.

Differences are drawn from distributions with a known mean, 0: normal ones, Student's t with three
degrees of freedom (heavy tails), exponential ones (skewed), and those of ``sample_tiles.csv``: the
counts on twelve tiles of five attempts in six runs of the sample, at the commits that its first
column names. Each pair of attempts in a run is a population of twelve differences; tiles are drawn
from it with replacement, and its mean is the truth.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from roofseg.core.files import write_text
from roofseg.metrics import iou
from roofseg.results.folds import corrected_estimate
from roofseg.results.intervals import (
    CONFIDENCE,
    STATISTICS,
    Interval,
    Statistic,
    estimate,
    score_interval,
)
from roofseg.results.tables import markdown_table
from stages import ROOT, run

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Ends = tuple[Floats, Floats]

PAGE = ROOT / "docs" / "statistics.md"
SAMPLE = Path(__file__).with_name("sample_tiles.csv")
SAMPLES = 12_000
RESAMPLES = 2_000
TILES = (6, 12, 30)
FOLDS = (3, 5, 6, 10)
TAIL = (1 - CONFIDENCE) / 2
EPOCHS = 1 - 0.5 ** np.arange(1, 5)
"""The learners of the folds reach these shares of their fit, as gradient descent does that halves
the distance to it in every epoch."""


def runs_of_the_sample() -> list[pd.DataFrame]:
    """The IoU of each run, a row per tile and a column per attempt."""
    table = pd.read_csv(SAMPLE)
    table["iou"] = iou(table.tp, table.fp, table.fn)
    return [
        own.pivot(index="tile", columns="attempt", values="iou")
        for _, own in table.groupby("commit")
    ]


def differences_of_the_sample() -> Floats:
    """The differences of all pairs of attempts in all runs, minus their means: (pairs, tiles)."""
    found = [
        (run[one] - run[other]).to_numpy()
        for run in runs_of_the_sample()
        for one, other in combinations(run, 2)
    ]
    return np.array([values - values.mean() for values in found])


def draw_from_the_sample(rng: np.random.Generator, tiles: int) -> Floats:
    population = differences_of_the_sample()
    each = SAMPLES // len(population)
    picked = rng.integers(0, population.shape[1], (len(population), each * tiles))
    return np.take_along_axis(population, picked, axis=1).reshape(-1, tiles)


SHAPES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, tiles: rng.normal(size=(SAMPLES, tiles)),
    "heavy tails": lambda rng, tiles: rng.standard_t(3, (SAMPLES, tiles)),
    "skewed": lambda rng, tiles: rng.exponential(size=(SAMPLES, tiles)) - 1,
    "the sample's": draw_from_the_sample,
}


def bootstrap(method: str) -> Callable[[Floats], Ends]:
    def ends(samples: Floats) -> Ends:
        parts = np.array_split(samples, -(-samples.size // 10_000))  # bounds the memory
        found = [
            stats.bootstrap(
                (part,), np.mean, axis=-1, n_resamples=RESAMPLES, method=method, rng=1
            ).confidence_interval
            for part in parts
        ]
        low, high = (np.concatenate(part) for part in zip(*found, strict=True))
        return low, high

    return ends


def bootstrap_t(samples: Floats) -> Ends:
    """The studentized bootstrap (Efron & Tibshirani 1993, section 12.5)."""
    tiles = samples.shape[1]
    weights = np.random.default_rng(1).multinomial(tiles, [1 / tiles] * tiles, RESAMPLES) / tiles
    ends = []
    for part in np.array_split(samples, 24):
        mean, error = part.mean(1), part.std(1)
        means = part @ weights.T
        errors = np.sqrt(np.maximum(part**2 @ weights.T - means**2, 0))
        off = means - mean[:, None]
        # A resample of one tile alone has no error.
        ratios = np.where(errors > 1e-9, off / np.maximum(errors, 1e-9), np.copysign(np.inf, off))
        low, high = np.quantile(ratios, [TAIL, 1 - TAIL], axis=1, method="inverted_cdf")
        ends.append((mean - high * error, mean - low * error))
    low, high = (np.concatenate(part) for part in zip(*ends, strict=True))
    return low, high


def sign_flips(samples: Floats) -> Ends:
    """The means that the sign-flip test does not reject (Fisher 1935).

    A flip of the signs of some tiles changes the sum by twice theirs. So the one-sided p-value of a
    mean m is the share of subsets of tiles with a mean of at most m, the empty one included
    (Hartigan 1969): the ends are quantiles of the means of subsets. Of more than 12 tiles, 3,999
    random subsets.
    """
    tiles = samples.shape[1]
    if tiles <= 12:
        subsets = np.arange(1, 2**tiles)[:, None] >> np.arange(tiles) & 1
    else:
        subsets = np.random.default_rng(1).integers(0, 2, (3_999, tiles))
    weights = subsets / subsets.sum(1, keepdims=True)
    rank = int(TAIL * (len(subsets) + 1))
    ends = []
    for part in np.array_split(samples, 24):
        means = np.sort(part @ weights.T, axis=1)
        ends.append((means[:, rank - 1], means[:, -rank]))
    low, high = (np.concatenate(part) for part in zip(*ends, strict=True))
    return low, high


def paired_t(samples: Floats) -> Ends:
    found = stats.ttest_1samp(samples, 0, axis=1).confidence_interval(CONFIDENCE)
    return found.low, found.high


METHODS: dict[str, Callable[[Floats], Ends]] = {
    "percentile bootstrap": bootstrap("percentile"),
    "BCa bootstrap": bootstrap("BCa"),
    "bootstrap t": bootstrap_t,
    "sign flips": sign_flips,
    "paired t": paired_t,
}


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def coverage() -> list[str]:
    """How often nominal 95 % intervals contain the mean difference, and how wide they are."""
    rows = []
    for tiles in TILES:
        shares: dict[str, list[str]] = {name: [] for name in METHODS}
        width = dict.fromkeys(METHODS, 0.0)
        for number, draw in enumerate(SHAPES.values()):
            samples = draw(np.random.default_rng([tiles, number]), tiles)
            for name, method in METHODS.items():
                low, high = method(samples)
                shares[name].append(percent(float(((low <= 0) & (high >= 0)).mean())))
                width[name] = float(np.median(high - low))  # at last that of the sample's
        rows += [
            [str(tiles), name, *shares[name], f"{width[name] / width['paired t']:.2f}"]
            for name in METHODS
        ]
    return markdown_table(["tiles", "method", *SHAPES, "width"], rows, ["method"])


def t_p_values(differences: Floats) -> Floats:
    """Two-sided p-values of the paired t test, (samples,), of (samples, tiles) differences."""
    return np.asarray(stats.ttest_1samp(differences, 0, axis=1).pvalue)


def flip_p_values(differences: Floats) -> Floats:
    """Those of the sign-flip test: by all flips of up to 12 tiles, beyond by 3,999 random ones."""
    tiles = differences.shape[1]
    if tiles <= 12:
        flips = np.arange(2 ** (tiles - 1))[:, None] >> np.arange(tiles) & 1
    else:
        flips = np.random.default_rng(1).integers(0, 2, (4_000, tiles))
        flips[0] = 0
    found = []
    for part in np.array_split(differences, 24):
        sums = np.abs(part @ (1 - 2 * flips).T)
        found.append((sums >= sums[:, :1] - 1e-12).mean(axis=1))
    return np.concatenate(found)


def holm(p: Floats) -> Floats:
    """P-values of several tests, (samples, tests), corrected by Holm's method."""
    by_size = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, by_size, axis=1) * np.arange(p.shape[1], 0, -1)
    corrected = np.empty(p.shape)
    np.put_along_axis(corrected, by_size, np.maximum.accumulate(steps, axis=1), axis=1)
    return corrected


def fold_p_values(folds: int, differences: Floats) -> Floats:
    """Those of `roofseg.results.folds.corrected_estimate`, for folds of equal size."""
    means = differences.reshape(len(differences), folds, -1).mean(2)
    errors = means.std(1, ddof=1) * (1 / folds + 1 / (folds - 1)) ** 0.5
    return np.asarray(2 * stats.t.sf(np.abs(means.mean(1)) / errors, folds - 1))


def behind_the_best(
    scores: Floats, p_values: Callable[[Floats], Floats], correction: str
) -> Booleans:
    """Which attempts are called behind the one with the best mean.

    Args:
        scores: (samples, tiles, attempts).
        p_values: the test of one pair.
        correction: ``none``; ``with the best``, Holm's over the pairs with the best attempt; or
            ``all pairs``, Holm's over all.

    Returns:
        (samples, attempts); False for the best.
    """
    samples, _, attempts = scores.shape
    order = np.argsort(-scores.mean(1), axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order[:, None], axis=2)
    pairs = list(combinations(range(attempts), 2))  # those with the best come first
    if correction != "all pairs":
        pairs = pairs[: attempts - 1]
    p = np.stack([p_values(ranked[:, :, one] - ranked[:, :, other]) for one, other in pairs], 1)
    if correction != "none":
        p = holm(p)
    behind = np.zeros((samples, attempts), bool)
    behind[:, 1:] = p[:, : attempts - 1] <= 1 - CONFIDENCE
    return behind


FAMILIES = {
    "paired t, no correction": (t_p_values, "none"),
    "paired t, pairs with the best": (t_p_values, "with the best"),
    "paired t, all pairs": (t_p_values, "all pairs"),
    "sign flips, all pairs": (flip_p_values, "all pairs"),
}


def verdicts() -> list[str]:
    """How often five equal attempts are called different, and unequal ones are told apart."""
    tables = np.array([run.to_numpy() for run in runs_of_the_sample()])
    each = SAMPLES // len(tables)
    rows = []
    for tiles in TILES:
        rng = np.random.default_rng(tiles)
        normal = rng.normal(size=(SAMPLES, tiles, tables.shape[2]))
        picked = rng.integers(0, tables.shape[1], (each, tiles))
        drawn = np.concatenate([table[picked] for table in tables])
        equal = np.concatenate([(table - table.mean(0))[picked] for table in tables])
        for name, (p_values, correction) in FAMILIES.items():
            wrong = [
                behind_the_best(scores, p_values, correction).any(axis=1).mean()
                for scores in (normal, equal)
            ]
            found = behind_the_best(drawn, p_values, correction)[:, 1:].mean()
            rows.append([str(tiles), name, *map(percent, [*wrong, found])])
    header = ["tiles", "method", "false, normal", "false, the sample's", "found, the sample's"]
    return markdown_table(header, rows, ["method"])


def tuning(runs: int = 24, samples: int = 6_000) -> list[str]:
    """How often equal runs are called behind the best one, and how many of unequal ones are.

    The sample's runs are the first 24 of its 30 columns: five attempts at six commits.
    """
    table = np.concatenate([run.to_numpy() for run in runs_of_the_sample()], axis=1)[:, :runs]
    rows = []
    for tiles in TILES:
        rng = np.random.default_rng([tiles, runs])
        drawn = table[rng.integers(0, len(table), (samples, tiles))]
        equal = {
            "normal": rng.normal(size=(samples, tiles, runs)),
            "the sample's": drawn - table.mean(0),
        }
        for correction in ("with the best", "all pairs"):
            columns = {}
            for kind, scores in equal.items():
                behind = behind_the_best(scores, t_p_values, correction)
                places = np.argsort(np.argsort(-scores.mean(1), axis=1, kind="stable"), axis=1)
                by_run = np.take_along_axis(behind, places, axis=1).mean(0)
                columns[f"one, {kind}"] = by_run.mean()
                columns[f"worst, {kind}"] = by_run.max()
                columns[f"any, {kind}"] = behind.any(axis=1).mean()
            behind = behind_the_best(drawn, t_p_values, correction)
            columns["found, the sample's"] = behind[:, 1:].mean()
            rows.append([str(tiles), correction, *map(percent, columns.values())])
    return markdown_table(["tiles", "correction", *columns], rows, ["correction"])


def percentile_interval(rows: Floats, statistic: Statistic, weights: Floats) -> Interval:
    """The percentile bootstrap interval; ``weights``, (resamples, tiles), count the tiles."""
    if statistic.pooled:
        found = statistic.score(*(weights @ rows).T)
    else:
        found = weights @ statistic.score(*rows.T) / len(rows)
    low, high = np.quantile(found, [TAIL, 1 - TAIL])
    return Interval(statistic(rows), low, high)


def scores(repeats: int = 200) -> list[str]:
    """How often the 95 % interval of a score of one attempt contains its value on all tiles."""
    counts = pd.read_csv(SAMPLE)
    populations = [
        own[["tp", "fp", "fn"]].to_numpy(np.float64)
        for _, own in counts.groupby(["commit", "attempt"])
    ]
    names = ["iou", "f1", "iou_pooled", "precision", "recall"]
    rows = []
    for tiles in TILES:
        rng = np.random.default_rng(tiles)
        weights = rng.multinomial(tiles, [1 / tiles] * tiles, 1_000).astype(np.float64)
        hits = np.zeros((2, len(names)))
        for population in populations:
            for _ in range(repeats):
                sample = population[rng.integers(0, len(population), tiles)]
                for column, name in enumerate(names):
                    statistic = STATISTICS[name]
                    truth = statistic(population)
                    both = (
                        percentile_interval(sample, statistic, weights),
                        score_interval(estimate(sample, statistic)),
                    )
                    hits[:, column] += [found.low <= truth <= found.high for found in both]
        shares = hits / (repeats * len(populations))
        rows += [
            [str(tiles), method, *map(percent, own)]
            for method, own in zip(("percentile bootstrap", "Student's t"), shares, strict=True)
        ]
    return markdown_table(["tiles", "method", *names], rows, ["method"])


def parts(of_tile: Integers, fold: int) -> tuple[Integers, Integers, Integers]:
    """The tiles that train, choose and are scored in a fold's run (`roofseg.studies.folds`)."""
    chooses = of_tile == (fold + 1) % (of_tile.max() + 1)
    scored = of_tile == fold
    return np.flatnonzero(~chooses & ~scored), np.flatnonzero(chooses), np.flatnonzero(scored)


def chosen_epoch(fitted: Floats, truth: Floats) -> Floats:
    """The one of `EPOCHS` with the least squared error on the tiles that choose, (repeats,).

    ``fitted`` is what the whole fit predicts there; an epoch predicts a share of it.
    """
    axes = tuple(range(1, truth.ndim))
    errors = [((truth - share * fitted) ** 2).sum(axes) for share in EPOCHS]
    return np.asarray(EPOCHS[np.argmin(errors, axis=0)])


def steady(rng: np.random.Generator, repeats: int, of_tile: Integers, shared: float) -> Floats:
    """Out-of-fold differences, (repeats, tiles), of learning a mean, against predicting 0.

    A tile has five numbers, normal with mean 0.2 and sd 1; a score is minus the squared error.
    ``shared`` is the sd of what the tiles of a fold have in common, like neighbours.
    """
    numbers = rng.normal(0.2, 1, (repeats, len(of_tile), 5))
    numbers += rng.normal(0, shared, (repeats, of_tile.max() + 1, 5))[:, of_tile]
    differences = np.empty(numbers.shape[:2])
    for fold in np.unique(of_tile):
        train, chooses, scored = parts(of_tile, fold)
        fitted = numbers[:, train].mean(1, keepdims=True)
        learnt = chosen_epoch(fitted, numbers[:, chooses])[:, None, None] * fitted
        errors = (numbers[:, scored] - learnt) ** 2
        differences[:, scored] = (numbers[:, scored] ** 2 - errors).sum(2)
    return differences


def unstable(rng: np.random.Generator, repeats: int, of_tile: Integers) -> Floats:
    """Those of a regression on the one of 20 numbers that fits best, against predicting 0.

    Only the first number has an effect, 0.6, beside noise with sd 1. Other training tiles may
    choose another number.
    """
    numbers = rng.normal(size=(repeats, len(of_tile), 20))
    truth = 0.6 * numbers[:, :, 0] + rng.normal(size=numbers.shape[:2])
    differences = np.empty(truth.shape)
    for fold in np.unique(of_tile):
        train, chooses, scored = parts(of_tile, fold)
        known = numbers[:, train]
        products = (known * truth[:, train, None]).sum(1)
        best = np.abs(products).argmax(1)[:, None]
        slopes = np.take_along_axis(products / (known**2).sum(1), best, axis=1)
        fitted = slopes * np.take_along_axis(numbers, best[:, :, None], axis=2)[:, :, 0]
        epochs = chosen_epoch(fitted[:, chooses], truth[:, chooses])[:, None]
        errors = (truth[:, scored] - epochs * fitted[:, scored]) ** 2
        differences[:, scored] = truth[:, scored] ** 2 - errors
    return differences


LEARNERS: dict[str, Callable[[np.random.Generator, int, Integers], Floats]] = {
    "steady": lambda *of: steady(*of, shared=0),
    "steady, neighbours": lambda *of: steady(*of, shared=0.5),
    "unstable": unstable,
}


def folds(repeats: int = 3_000, tiles: int = 30) -> list[str]:
    """How often 95 % intervals of cross-validation contain the expected difference.

    Each run trains on all folds but two, and the next fold chooses its epoch.
    """
    rows = []
    for number, (learner, differences) in enumerate(LEARNERS.items()):
        for count in FOLDS:
            rng = np.random.default_rng([count, number])
            of_tile = np.repeat(np.arange(count), tiles // count)
            truth = differences(rng, 20_000, of_tile).mean()
            hits = np.zeros(3)
            for values in differences(rng, repeats, of_tile):
                found = [
                    estimate(values),
                    estimate(values.reshape(count, -1).mean(1)),
                    corrected_estimate(values, of_tile),
                ]
                hits += [own.interval.low <= truth <= own.interval.high for own in found]
            rows.append([learner, str(count), *map(percent, hits / repeats)])
    header = ["learner", "folds", "t over tiles", "t over folds", "corrected t over folds"]
    return markdown_table(header, rows, ["learner"])


def power() -> list[str]:
    """How many pairs of the sample's attempts are told apart by val tiles, and by folds."""
    tables = np.array([run.to_numpy() for run in runs_of_the_sample()])
    pairs = list(combinations(range(tables.shape[2]), 2))
    rng = np.random.default_rng(30)

    def told_apart(tables: Floats, tiles: int, p_values: Callable[[Floats], Floats]) -> Booleans:
        picked = rng.integers(0, tables.shape[1], (SAMPLES // len(tables), tiles))
        scores = np.concatenate([table[picked] for table in tables])
        p = [p_values(scores[:, :, one] - scores[:, :, other]) for one, other in pairs]
        return holm(np.stack(p, 1)) <= 1 - CONFIDENCE

    designs = [("6 val tiles", 6, t_p_values)]
    designs += [(f"30 tiles in {k} folds", 30, partial(fold_p_values, k)) for k in FOLDS]
    designs += [("30 val tiles", 30, t_p_values)]
    rows = []
    for name, tiles, p_values in designs:
        false = told_apart(tables - tables.mean(1, keepdims=True), tiles, p_values).any(axis=1)
        found = told_apart(tables, tiles, p_values)
        rows.append([name, percent(float(false.mean())), percent(float(found.mean()))])
    return markdown_table(["scores", "false", "found"], rows, ["scores"])


TABLES: dict[str, Callable[[], list[str]]] = {
    "coverage": coverage,
    "verdicts": verdicts,
    "tuning": tuning,
    "scores": scores,
    "folds": folds,
    "power": power,
}


def between_marks(page: str, name: str, lines: Sequence[str]) -> str:
    """Replace the text between the marks of a table; KeyError if the page has none."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if start not in page or end not in page:
        raise KeyError(name)
    body = "\n".join([start, *lines, "", end])
    return re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: body, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)} (default: all)")
    for name in parser.parse_args().tables or TABLES:
        lines = TABLES[name]()
        print(f"\n{name}", *lines, sep="\n", flush=True)
        page = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, between_marks(page, name, lines))


if __name__ == "__main__":
    run(main)
