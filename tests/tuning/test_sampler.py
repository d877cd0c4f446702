"""Samplers on small grids, with formulas in place of training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from project import PARAMS

from roofseg.core.errors import UserError
from roofseg.recipe.parsing import parse_params
from roofseg.tuning import sampler
from roofseg.tuning.grid import Run, Tuning, build_spaces
from roofseg.tuning.sampler import batches, known_runs, propose, search_name

LRS, PRESETS = (0.0001, 0.001, 0.01), ("none", "light", "heavy", None)
SPACE = [
    Run("small", f"tune-small-{number}", {"lr": lr, "augmentation": preset}, {})
    for number, (lr, preset) in enumerate(itertools.product(LRS, PRESETS))
]
OTHER = [Run("smaller", f"tune-smaller-{lr}", {"lr": lr}, {}) for lr in LRS]
SPACES = {"small": SPACE, "smaller": OTHER}
SEARCHES = Path("searches.json")


def score(run: Run) -> float:
    """The val IoU of a run: best at lr 0.001 with light augmentation."""
    return (
        0.9
        - 0.2 * abs(LRS.index(run.values["lr"]) - 1)
        - 0.1 * abs(PRESETS.index(run.values.get("augmentation")) - 1)
    )


def tuning(name: str, runs: int, seed: int = 1) -> Tuning:
    return Tuning(sampler=name, seed=seed, runs=runs, attempts={"a": {}})  # type: ignore[arg-type]


def search(
    runs: int, score: Callable[[Run], float | None] = score, spaces: object = SPACES
) -> list[list[Run]]:
    """All batches of the sampler tpe."""
    return list(batches(tuning("tpe", runs), spaces, SEARCHES, score))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep searches.json in a folder of the test."""
    monkeypatch.chdir(tmp_path)


class TestGrid:
    def test_every_attempt_gets_the_same_number_of_runs_in_turn(self) -> None:
        (batch,) = batches(tuning("grid", 3), SPACES, SEARCHES, score)
        assert [run.attempt for run in batch] == ["small", "smaller"] * 3
        assert batch[::2] == SPACE[:3]
        assert known_runs(tuning("grid", 3), SPACES, SEARCHES) == batch
        assert not SEARCHES.exists()

    def test_a_larger_budget_extends_a_smaller_one(self) -> None:
        smaller, larger = (known_runs(tuning("grid", runs), SPACES, SEARCHES) for runs in (2, 3))
        assert larger[:4] == smaller

    def test_the_sample_of_a_declared_grid_is_seeded(self) -> None:
        def sample(seed: int) -> list[Run]:
            declared = Tuning(
                sampler="grid", seed=seed, runs=2, attempts={"small": {"lr": [0.1, 0.2, 0.3]}}
            )
            spaces = build_spaces(declared, parse_params(PARAMS), identify=str)
            return known_runs(declared, spaces, SEARCHES)

        assert sample(1) == sample(1)
        assert len({tuple(run.name for run in sample(seed)) for seed in range(9)}) > 1


class TestTpe:
    pytestmark = pytest.mark.skipif(
        not sampler.find_spec("optuna"), reason="needs the extra `tune`"
    )

    def test_attempts_are_searched_side_by_side_without_repetition(self) -> None:
        found = search(3)
        assert [[run.attempt for run in batch] for batch in found] == [["small", "smaller"]] * 3
        assert len({run.name for batch in found for run in batch}) == 6
        assert {run.name for _, run in found} == {run.name for run in OTHER}  # its whole grid

    def test_a_batch_is_proposed_after_the_previous_one_has_scores(self) -> None:
        """Scores are asked for only then, and only those of earlier runs."""
        scored: set[str] = set()

        def known(run: Run) -> float:
            assert run.name in scored
            return score(run)

        for batch in batches(tuning("tpe", 3), SPACES, SEARCHES, known):
            scored |= {run.name for run in batch}

    def test_results_decide_which_runs_come_next(self) -> None:
        """The same results lead to the same runs; the first runs are random."""

        def first(worth: Callable[[Run], float]) -> list[Run]:
            SEARCHES.unlink(missing_ok=True)
            return [run for (run,) in search(6, worth, {"small": SPACE})]

        one, same, other = first(score), first(score), first(lambda run: 1 - score(run))
        assert one == same
        assert one[:2] == other[:2]
        assert one != other

    def test_the_first_runs_are_drawn_independently(self) -> None:
        """With the same random numbers, two runs of a large grid would differ in only one value."""

        def first_two(seed: int) -> tuple[Run, Run]:
            one = propose(SPACE, [], runs=8, seed=seed)
            return one, propose(SPACE, [(one, score(one))], runs=8, seed=seed)

        pairs = [first_two(seed) for seed in range(20)]
        assert any(not one.values.items() & two.values.items() for one, two in pairs)

    def test_a_search_finds_the_best_sooner_than_chance(self) -> None:
        """Over many seeds: the mean of the runs that TPE picks is above that of the grid."""

        def mean(seed: int) -> float:
            tried: list[tuple[Run, float | None]] = []
            for _ in range(8):
                run = propose(SPACE, tried, runs=8, seed=seed)
                tried.append((run, score(run)))
            return sum(value or 0 for _, value in tried[2:]) / 6

        chance = sum(map(score, SPACE)) / len(SPACE)
        assert sum(mean(100 * seed) for seed in range(10)) / 10 > chance + 0.02

    @pytest.mark.parametrize("stop_at", [1, 4])
    def test_a_stopped_search_ends_as_if_it_had_not_been_stopped(self, stop_at: int) -> None:
        whole = search(6, spaces={"small": SPACE})
        SEARCHES.unlink()
        started = batches(tuning("tpe", 6), {"small": SPACE}, SEARCHES, score)
        first = [next(started) for _ in range(stop_at)]
        assert known_runs(tuning("tpe", 6), {"small": SPACE}, SEARCHES) == [
            run for batch in first for run in batch
        ]
        assert search(6, spaces={"small": SPACE}) == whole

    def test_the_file_and_the_results_lead_to_the_same_search(self) -> None:
        """If the file is lost, the results alone give the same file."""
        whole = search(3)
        before = SEARCHES.read_bytes()
        SEARCHES.unlink()
        assert search(3) == whole
        assert SEARCHES.read_bytes() == before

    def test_proposed_runs_stay_when_results_change(self) -> None:
        """For example, when a run that failed succeeds later."""
        first = search(3)
        assert search(3, lambda run: 1 - score(run)) == first
        assert [run for batch in first for run in batch] == known_runs(
            tuning("tpe", 3), SPACES, SEARCHES
        )

    def test_a_larger_budget_continues_and_a_smaller_one_shows_fewer_runs(self) -> None:
        first = search(2, spaces={"small": SPACE})
        assert search(4, spaces={"small": SPACE})[:2] == first
        assert [known_runs(tuning("tpe", 1), {"small": SPACE}, SEARCHES)] == first[:1]

    def test_a_failed_run_is_not_proposed_again(self) -> None:
        found = search(len(SPACE), lambda run: None, {"small": SPACE})
        assert {run.name for (run,) in found} == {run.name for run in SPACE}

    def test_another_grid_is_another_search(self) -> None:
        search(2, spaces={"small": SPACE})
        (first,), *_ = search(2, spaces={"small": SPACE[:4]})
        assert first in SPACE[:4]
        assert json.loads(SEARCHES.read_text()).keys() == {
            search_name(SPACE),
            search_name(SPACE[:4]),
        }
        assert search_name(SPACE[::-1]) == search_name(SPACE)

    @pytest.mark.parametrize("text", ["half of a", "[1, 2]", '{"small 1": "tune-small-1"}'])
    def test_a_file_that_holds_something_else_is_named(self, text: str) -> None:
        SEARCHES.write_text(text)
        with pytest.raises(UserError, match=r"^searches\.json: expected lists of .*\. Remove the"):
            search(2)
        assert SEARCHES.read_text() == text


def test_optuna_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sampler: tpe needs the package optuna.*pip install"):
        search(2)
    assert not SEARCHES.exists()
