"""Adaptive tuning with Optuna: TPE picks each run by the ones before it, and bad runs end early.

The sampler is the tree-structured Parzen estimator (Bergstra et al., Algorithms for
Hyper-Parameter Optimization, NeurIPS 2011). A run is pruned after an epoch at which its best val
IoU so far is below the median of the earlier runs' (the median rule of Golovin et al., Google
Vizier, KDD 2017). All of a search is in an SQLite file, so a search that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError

from roofseg.core.errors import UserError
from roofseg.tuning.grid import Run, search_name

Report = Callable[[int, float], bool]
"""Takes an epoch (from 1) and its val IoU; says whether the run should end there."""

STARTUP = 4  # a quarter of the budget is random: TPE and the median need something to go by


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the val IoU of its best epoch, and whether it ended early.

    It is ``pruned`` where its reports were poor, and where its loss stopped being finite.
    """

    val_iou: float
    pruned: bool


def search(
    space: Sequence[Run],
    *,
    runs: int,
    seed: int,
    warmup: int,
    train: Callable[[Run, int, Report], Outcome],
    database: Path,
) -> None:
    """Have ``runs`` different recipes of an attempt's grid tried.

    A trial that was interrupted is tried again first. The same results lead to the same next
    recipe, whether or not a search was stopped in between.

    Args:
        space: all runs of the grid.
        runs: the budget; pruned runs count.
        seed: of the sampler.
        warmup: epochs after which pruning may begin.
        train: trains a run, given its number (from 0) and whom to report to after each epoch.
        database: the SQLite file, made where it is missing. Another grid, or other code, is another
            search in it.

    Raises:
        UserError: another process searches with this file, or it cannot be read or written
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock")
    try:
        with lock.acquire(timeout=0), _of_sqlite(database):
            startup = max(2, runs // STARTUP)
            study = _study(space, startup, warmup, database)
            _begin_again(study)
            while len(tried := _tried(study)) < runs:
                _next(study, space, tried, seed, startup, train)
    except Timeout:
        raise UserError(
            f"{database}: another process tunes with it. Wait for its end, or stop it."
        ) from None


@contextmanager
def _of_sqlite(database: Path) -> Iterator[None]:
    """What SQLite finds wrong with the file (broken, read-only, a full disk) is a UserError."""
    try:
        yield
    except (DatabaseError, StorageInternalError) as error:
        why: BaseException = error
        while why.__cause__:  # SQLite's own words
            why = why.__cause__
        raise UserError(
            f"{database}: cannot be used ({why}). Mend that, or remove the file: a trial that has "
            "a record is not trained again."
        ) from None


def _study(space: Sequence[Run], startup: int, warmup: int, database: Path) -> optuna.Study:
    return optuna.create_study(
        storage=f"sqlite:///{database}",
        study_name=search_name(space),
        direction="maximize",
        pruner=MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup + 1),
        load_if_exists=True,
    )


def _begin_again(study: optuna.Study) -> None:
    """Put the trials of a process that was killed first in line."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _tried(study: optuna.Study) -> dict[str, FrozenTrial]:
    """The trials that count, by the name of their run."""
    trials = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return {trial.user_attrs["name"]: trial for trial in trials if "name" in trial.user_attrs}


def _next(
    study: optuna.Study,
    space: Sequence[Run],
    tried: Mapping[str, FrozenTrial],
    seed: int,
    startup: int,
    train: Callable[[Run, int, Report], Outcome],
) -> None:
    """Make one trial, of the run that TPE picks; one that was tried makes way for its neighbour."""
    # A sampler of its own for each: one that went on would begin anew in another process. Its seed
    # counts what was tried, since a trial that was cut off is one more of the study's.
    seed += len(tried)
    study.sampler = TPESampler(seed=seed, n_startup_trials=startup)
    choices: dict[str, BaseDistribution] = {
        key: CategoricalDistribution(sorted({run.values[key] for run in space}, key=repr))
        for key in space[0].values
    }
    trial = study.ask(choices)
    run = next(run for run in space if run.values == trial.params)
    if run.name in tried:
        study.tell(trial, state=TrialState.FAIL)  # it would teach nothing
        study.enqueue_trial(dict(_near(run, space, tried, seed).values))
        return
    trial.set_user_attr("name", run.name)

    def report(epoch: int, val_iou: float) -> bool:
        trial.report(val_iou, epoch)
        return bool(trial.should_prune())  # NumPy's, which JSON does not know

    found = train(run, len(tried), report)
    if found.pruned:
        trial.set_user_attr("val_iou", found.val_iou)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, found.val_iou)


def _near(run: Run, space: Sequence[Run], tried: Collection[str], seed: int) -> Run:
    """Of the runs that were not tried, one that shares the most values with ``run``."""
    waiting = [space[index] for index in np.random.default_rng(seed).permutation(len(space))]
    return max(
        (each for each in waiting if each.name not in tried),
        key=lambda each: len(each.values.items() & run.values.items()),
    )
