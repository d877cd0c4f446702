"""Paths on the command line."""

from __future__ import annotations

import os
from pathlib import Path


def users_path(text: str) -> Path:
    """Expand ``~`` in a path: shells do not, in the variables that `make` is called with.

    ``~NAME`` of an unknown user stays as it is; `Path.expanduser` would raise.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111
