"""Folders that keep the state of training runs: their locks, their end and their removal.

A run keeps its state in ROOT/ATTEMPT@HASH (see `roofseg.training.resume`), beside a lock file. A
finished run leaves its state there with a mark, since DVC may still die before it records the
outputs; then the next run writes the same outputs from the state, without training. The state goes
when it is not needed any more: the evaluate stage removes it once it has loaded the run's model
(DVC has recorded the outputs by then), and the next run of the attempt that finishes removes the
marked states of earlier runs.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, write_json

FINISHED = "finished.json"


def lock_file(state: Path) -> Path:
    """The lock file of a state folder."""
    return state.with_name(f"{state.name}.lock")


def is_locked(state: Path) -> bool:
    """Whether a process works on the state now."""
    try:
        with FileLock(lock_file(state), timeout=0):
            return False
    except Timeout:
        return True


def is_finished(state: Path) -> bool:
    """Whether the run wrote its outputs."""
    return (state / FINISHED).is_file()


def mark_finished(state: Path, model_sha256: str) -> None:
    """Mark the state of a run that wrote its model, and remove its attempt's earlier marked states.

    The caller holds the lock of ``state``. ``model_sha256`` is the hash of the weights file.
    """
    write_json(state / FINISHED, {"model_sha256": model_sha256})
    attempt = state.name.partition("@")[0]
    for other in finished_states(state.parent, attempt):
        if other != state:
            _remove_unlocked(other)


def finished_states(root: Path, attempt: str) -> list[Path]:
    """The marked state folders of an attempt."""
    return sorted(mark.parent for mark in root.glob(f"{attempt}@*/{FINISHED}"))


def remove_states_of(model_sha256: str, root: Path, attempt: str) -> None:
    """Remove the marked states of an attempt whose run wrote the model with this hash.

    A state that another process works on stays, and so does one that cannot be removed.
    """
    for state in finished_states(root, attempt):
        with suppress(OSError, UserError):
            if read_json(state / FINISHED)["model_sha256"] == model_sha256:
                _remove_unlocked(state)


def remove_state(state: Path) -> None:
    """Remove a state folder and its lock file; the caller holds the lock."""
    # Rename it first: a state that lacks some of its files must never be found.
    gone = state.with_name(f".{state.name}")
    shutil.rmtree(gone, ignore_errors=True)
    state.rename(gone)
    shutil.rmtree(gone)
    lock_file(state).unlink(missing_ok=True)


def _remove_unlocked(state: Path) -> None:
    with suppress(Timeout), FileLock(lock_file(state), timeout=0):
        if is_finished(state):
            remove_state(state)
