"""Bring a user's files into a dataset, as `roofseg new-dataset` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roofseg.intake.bring_in import bring_in
from roofseg.intake.division import Division
from roofseg.intake.inspect import Report


def taken(images: Path, masks: Path, folder: Path, **options: Any) -> tuple[Report, list[str]]:
    """Bring files in; return the report and the remarks."""
    said: list[str] = []
    options.setdefault("division", Division())
    return bring_in(images, masks, folder, say=said.append, **options), said
