"""What a user without privileges sees: tests run as root in many containers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without privileges; root may read and write anything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that `nobody` may list but not write in; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755 if os.geteuid() == 0 else 0o555)
        try:
            yield Path(name)
        finally:
            Path(name).chmod(0o755)
