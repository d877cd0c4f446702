"""The folders that keep the state of training runs: lock them, mark them finished, remove them.

A run keeps its state in ROOT/ATTEMPT@HASH (see `roofseg.training.resume`), beside a lock file. A
finished run marks its state and leaves it there, since DVC may still die before it records the
outputs; then the next run writes the same outputs from the state, without training. A marked state
is removed when it is no longer needed: by the next stage, which runs once DVC has recorded the
outputs (evaluate; for a study, gather), and by the next run of the same attempt that finishes.

This module is not part of `roofseg.training` because the evaluate stage, which uses it, must not
depend on the code of training.
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
    """Whether another process holds the lock of the state."""
    try:
        with FileLock(lock_file(state), timeout=0):
            return False
    except Timeout:
        return True


def is_finished(state: Path) -> bool:
    """Whether the run of this state wrote its outputs."""
    return (state / FINISHED).is_file()


def mark_finished(state: Path, model_sha256: str) -> None:
    """Mark a state as finished, and remove the other finished states of the same attempt.

    Call this when the run has written its outputs; ``model_sha256`` is the hash of its weights
    file, or of its record if the weights are not kept.
    """
    write_json(state / FINISHED, {"model_sha256": model_sha256})
    remove_finished(state.parent, state.name.partition("@")[0], keep=state)


def finished_states(root: Path, attempt: str) -> list[Path]:
    """The state folders in ``root`` of an attempt's finished runs."""
    return sorted(mark.parent for mark in root.glob(f"{attempt}@*/{FINISHED}"))


def remove_states_of(model_sha256: str, root: Path, attempt: str) -> None:
    """Remove the finished states of an attempt whose run wrote the model with this hash.

    A state that another process has locked stays, and so does one that cannot be removed.
    """
    for state in finished_states(root, attempt):
        with suppress(OSError, UserError):
            if read_json(state / FINISHED)["model_sha256"] == model_sha256:
                _remove_unlocked(state)


def remove_finished(root: Path, attempt: str, *, keep: Path | None = None) -> None:
    """Remove the finished states of an attempt, except ``keep``, that no process has locked."""
    for state in finished_states(root, attempt):
        if state != keep:
            _remove_unlocked(state)


def remove_state(state: Path) -> None:
    """Remove a state folder and its lock file; the caller holds the lock."""
    # Rename it first, so that no run ever finds a state that lacks some of its files.
    gone = state.with_name(f".{state.name}")
    shutil.rmtree(gone, ignore_errors=True)
    state.rename(gone)
    shutil.rmtree(gone)
    lock_file(state).unlink(missing_ok=True)


def _remove_unlocked(state: Path) -> None:
    with suppress(Timeout), FileLock(lock_file(state), timeout=0):
        if is_finished(state):
            remove_state(state)
