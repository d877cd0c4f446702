"""Places that cannot be written or read: folders without permissions, and a full disk.

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
    """Drop the privileges of root inside the block."""
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
    """A folder that cannot be written; root has no privileges inside the block."""
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
    """Limit files to ``room`` bytes inside the block, as if the disk was full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
