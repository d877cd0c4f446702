"""Places that cannot be written to: a folder without rights, and a full disk."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder that this process may not write in; root gives up its rights inside the block."""
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside) / "read-only"
        folder.mkdir()
        Path(outside).chmod(0o755)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files end at ``room`` bytes inside the block, as on a disk that has no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
