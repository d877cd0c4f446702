"""Samplers: they decide which runs of the grids are run, and in which order.

``grid`` takes the first runs of each grid in its seeded order (see `roofseg.tuning.grid`). ``tpe``
is the tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter
Optimization, NeurIPS 2011) as Optuna implements it: it proposes the next recipe of an attempt by
the val IoU of the earlier runs. Searches are kept in a JSON file, so a stopped one can continue.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.tuning.grid import Run, Spaces, Tuning, short_hash

RANDOM_SHARE = 4  # 1/4 of the runs, the first ones, are random: TPE needs results to start from

SEARCHES: TypeAdapter[dict[str, list[str]]] = TypeAdapter(dict[str, list[str]])
"""Type of the searches file: by search, the names of the proposed runs in their order."""


def known_runs(tuning: Tuning, spaces: Spaces, searches: Path) -> list[Run]:
    """The runs that the sampler has picked so far: all for ``grid``, the proposed ones for ``tpe``.

    They alternate between attempts, so that all attempts have about as many runs after a stop.
    """
    if tuning.sampler == "tpe":
        found = _read_searches(searches)
        picked = [_proposed(found, space)[: tuning.runs] for space in spaces.values()]
    else:
        picked = [list(space[: tuning.runs]) for space in spaces.values()]
    return [run for turn in itertools.zip_longest(*picked) for run in turn if run]


def batches(
    tuning: Tuning, spaces: Spaces, searches: Path, score: Callable[[Run], float | None]
) -> Iterator[list[Run]]:
    """Yield runs that can be run at the same time, in their order.

    ``grid`` yields all runs at once, ``tpe`` one run of each attempt at a time.

    Args:
        tuning: the sampler, its seed, and the number of runs of each attempt.
        spaces: the runs to pick from.
        searches: the JSON file of the searches, which may be missing. Another grid, or other
            training code, is another search in it.
        score: returns the val IoU of a run that was yielded before; None if the run failed.

    Raises:
        UserError: Optuna is not installed, or the file does not hold searches
    """
    if tuning.sampler == "grid":
        yield known_runs(tuning, spaces, searches)
        return
    if not find_spec("optuna"):
        raise UserError(
            "studies/tuning.yaml: sampler: tpe needs the package optuna, which is not installed. "
            "Run `pip install 'optuna>=5,<6'`, or use `sampler: grid`."
        )
    for number in range(tuning.runs):
        found = _read_searches(searches)
        batch = []
        for space in spaces.values():
            proposed = _proposed(found, space)
            if number == len(proposed):
                tried = [(run, score(run)) for run in proposed]
                proposed.append(propose(space, tried, runs=tuning.runs, seed=tuning.seed))
                found[search_name(space)] = [run.name for run in proposed]
            batch.append(proposed[number])
        write_json(searches, found)
        yield batch


def propose(
    space: Sequence[Run], tried: Sequence[tuple[Run, float | None]], *, runs: int, seed: int
) -> Run:
    """The run of a grid to try next: the untried one that is closest to what TPE proposes.

    Closest is the run that shares the most values. The same arguments give the same run.

    Args:
        space: all runs of an attempt's grid.
        tried: the earlier runs in their order, with their val IoU; None if a run failed.
        runs: the number of runs of the search; the first quarter of them is random.
        seed: the seed of the search.
    """
    import optuna  # takes seconds
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed += len(tried)  # a new sampler with the same seed would draw the same numbers again
    startup = max(2, runs // RANDOM_SHARE)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup),
    )
    choices: dict[str, optuna.distributions.BaseDistribution] = {
        key: optuna.distributions.CategoricalDistribution(
            sorted({run.values[key] for run in space}, key=repr)
        )
        for key in space[0].values
    }
    for run, val_iou in tried:
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if val_iou is None else TrialState.COMPLETE,
                value=val_iou,
                params=dict(run.values),
                distributions=choices,
            )
        )
    proposal = study.ask(choices).params
    names = {run.name for run, _ in tried}
    shuffled = (space[index] for index in np.random.default_rng(seed).permutation(len(space)))
    return max(
        (run for run in shuffled if run.name not in names),
        key=lambda run: len(run.values.items() & proposal.items()),
    )


def search_name(space: Sequence[Run]) -> str:
    """The name of the search in an attempt's grid, derived from the names of all its runs."""
    names = " ".join(sorted(run.name for run in space))
    return f"{space[0].attempt} {short_hash(names)}"


def _proposed(searches: dict[str, list[str]], space: Sequence[Run]) -> list[Run]:
    by_name = {run.name: run for run in space}
    names = searches.get(search_name(space), [])
    return [by_name[name] for name in names if name in by_name]


def _read_searches(path: Path) -> dict[str, list[str]]:
    try:
        return SEARCHES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise UserError(
            f"{path}: expected lists of names of runs, by search; found something else "
            f"({error.errors()[0]['msg']}). Remove the file: runs that are done are not run again."
        ) from None
