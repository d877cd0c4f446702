"""The subjects that `make bench` measures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import cutting, frozen, guard, overlaps, predicting, sam_encoder, starts, step
from benchmarks.table import Row

SUBJECTS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "step": step.rows,
    "frozen": lambda _: frozen.rows(),
    "sam": lambda _: sam_encoder.rows(),
    "cutting": cutting.rows,
    "overlaps": lambda _: overlaps.rows(),
    "predicting": predicting.rows,
    "starts": lambda _: starts.rows(),
    "guard": lambda _: guard.rows(),
}


def measure(subject: str) -> list[Row]:
    """Measure a subject; returns its rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        return list(SUBJECTS[subject](Path(folder)))
