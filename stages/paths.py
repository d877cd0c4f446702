"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def users_path(text: str) -> Path:
    """A path in which ``~`` may stand for a home: shells leave it in what `make` is given.

    That of a user who is not there stays as it is, and names no file. (`Path.expanduser` raises.)
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111
