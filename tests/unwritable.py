"""Places that cannot be written to, or read: folders without rights, and a full disk.

Tests run as root in many containers, and root may read and write anything: `nobody` may not.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without privileges inside the block, where this is root."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that `nobody` may list and read; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        try:
            yield Path(name)
        finally:
            Path(name).chmod(0o755)


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder that may not be written in; root gives up its rights inside the block."""
    with public_folder() as public:
        folder = public / "read-only"
        folder.mkdir()
        folder.chmod(0o555)
        try:
            with nobody():
                yield folder
        finally:
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
