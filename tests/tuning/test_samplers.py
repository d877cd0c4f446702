"""Optuna's search over a grid: real studies in SQLite, with formulas in place of training."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("optuna")  # the extra `tune`

import optuna
from filelock import FileLock

from roofseg.core.errors import UserError
from roofseg.tuning.grid import Run, search_name
from roofseg.tuning.samplers import Outcome, Report, search

LRS, PRESETS = (0.0001, 0.001, 0.01), ("none", "light", "heavy", None)
SPACE = [
    Run("small", f"tune-small-{number}", {"lr": lr, "augmentation": preset}, {})
    for number, (lr, preset) in enumerate(itertools.product(LRS, PRESETS))
]


def value(run: Run) -> float:
    """What a run comes to: best at lr 0.001 under light."""
    return (
        0.9
        - 0.2 * abs(LRS.index(run.values["lr"]) - 1)
        - 0.1 * abs(PRESETS.index(run.values["augmentation"]) - 1)
    )


class Trainer:
    """Trains a run by what it is ``worth``, ``epochs`` long, and notes what it was given."""

    def __init__(
        self,
        epochs: int = 3,
        stop_at: int | None = None,
        worth: Callable[[Run], float] = value,
    ) -> None:
        self.epochs, self.stop_at, self.worth = epochs, stop_at, worth
        self.seen: list[tuple[str, int, int]] = []  # name, number, epochs

    def __call__(self, run: Run, number: int, report: Report) -> Outcome:
        for epoch in range(1, self.epochs + 1):
            reached = self.worth(run) * epoch / self.epochs
            answer = report(epoch, reached)
            assert type(answer) is bool  # it goes into a record
            ended = answer and epoch < self.epochs
            if len(self.seen) == self.stop_at:
                raise KeyboardInterrupt
            if ended:
                break
        self.seen.append((run.name, number, epoch))
        return Outcome(reached, pruned=ended)


def find(folder: Path, trainer: Trainer, runs: int) -> list[tuple[str, int, int]]:
    search(
        SPACE,
        runs=runs,
        seed=1,
        warmup=1,
        train=trainer,
        database=folder / "studies" / "optuna.db",
    )
    return trainer.seen


def test_a_budget_is_spent_on_different_recipes(tmp_path: Path) -> None:
    seen = find(tmp_path, Trainer(), 8)
    assert [number for _, number, _ in seen] == list(range(8))
    assert len({name for name, _, _ in seen}) == 8


def test_bad_runs_end_early(tmp_path: Path) -> None:
    """And none before the warm-up, nor before there are runs to compare with.

    A budget as large as the grid tries all of it.
    """
    seen = find(tmp_path, Trainer(), len(SPACE))
    assert {name for name, _, _ in seen} == {run.name for run in SPACE}
    worth = {run.name: value(run) for run in SPACE}
    pruned = [(place, name) for place, (name, _, epochs) in enumerate(seen) if epochs < 3]
    assert pruned
    assert min(place for place, _ in pruned) >= len(SPACE) // 4
    assert {epochs for _, _, epochs in seen} == {2, 3}
    best = max(worth, key=lambda name: worth[name])
    assert best not in [name for _, name in pruned]


@pytest.mark.parametrize("stop_at", [0, 4])
def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, stop_at: int) -> None:
    whole = find(tmp_path / "whole", Trainer(), 6)
    first, second = Trainer(stop_at=stop_at), Trainer()
    with pytest.raises(KeyboardInterrupt):
        find(tmp_path / "parts", first, 6)
    assert first.seen == whole[:stop_at]
    find(tmp_path / "parts", second, 6)
    assert first.seen + second.seen == whole


def test_a_search_that_is_over_trains_nothing_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    first = find(tmp_path, Trainer(), 3)
    assert find(tmp_path, Trainer(), 3) == []
    more = find(tmp_path, Trainer(), 5)
    assert [number for _, number, _ in more] == [3, 4]
    assert not {name for name, _, _ in more} & {name for name, _, _ in first}


def test_what_runs_came_to_decides_which_come_next(tmp_path: Path) -> None:
    """The same results lead the same way; the first runs are random, whatever they come to."""
    one, same, other = (
        find(tmp_path / str(number), Trainer(worth=worth), 6)
        for number, worth in enumerate((value, value, lambda run: 1 - value(run)))
    )
    assert one == same
    assert [name for name, _, _ in one[:2]] == [name for name, _, _ in other[:2]]
    assert [name for name, _, _ in one] != [name for name, _, _ in other]


def test_another_grid_is_another_search(tmp_path: Path) -> None:
    find(tmp_path, Trainer(), 2)
    trainer, database = Trainer(), tmp_path / "studies" / "optuna.db"
    search(SPACE[:4], runs=2, seed=1, warmup=1, train=trainer, database=database)
    assert len(trainer.seen) == 2
    names = optuna.get_all_study_names(f"sqlite:///{database}")
    assert set(names) == {search_name(SPACE), search_name(SPACE[:4])}


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "optuna.db").write_bytes(b"half of a copy" * 99)
    with pytest.raises(UserError, match=r"optuna\.db: cannot be used \(file is not a database\)"):
        find(tmp_path, Trainer(), 2)
    assert (tmp_path / "studies" / "optuna.db").read_bytes() == b"half of a copy" * 99


def test_two_searches_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    with (
        FileLock(tmp_path / "studies" / "optuna.db.lock"),
        pytest.raises(UserError, match=r"optuna\.db: another process tunes with it"),
    ):
        find(tmp_path, Trainer(), 2)
