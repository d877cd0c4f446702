"""Errors that a user can fix, and how errors of the operating system become such errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EFBIG,
    EIO,
    EISDIR,
    EMFILE,
    ENAMETOOLONG,
    ENFILE,
    ENOMEM,
    ENOSPC,
    ENOTDIR,
    EPERM,
    EPIPE,
    EROFS,
)

# Python raises these errors of write(2) without the name of the file.
DISK_FULL = (EDQUOT, EFBIG, ENOSPC)

_PERMISSIONS = "Change the permissions of that file or of its folder"
_FEWER_WORKERS = "lower `workers` in params.yaml"
REMEDIES = {
    ENOSPC: "Free space on that disk",
    EDQUOT: "Free space on that disk, or raise your quota",
    EFBIG: "Raise the limit on file sizes (`ulimit -f`), or use a disk that takes larger files",
    EACCES: _PERMISSIONS,
    EPERM: _PERMISSIONS,
    EEXIST: "Move away the file or folder that has this name",
    EISDIR: "Move away the folder that has the name of a file",
    ENOTDIR: "Move away the file that has the name of this folder or of a folder above",
    ENAMETOOLONG: "Use a shorter name",
    EMFILE: f"Raise the limit (`ulimit -n`), or {_FEWER_WORKERS}",
    ENFILE: f"Close other programs, or {_FEWER_WORKERS}",
    EROFS: "Use a folder on a file system that is not read-only",
    EIO: "Check the disk: it failed to read or write",
    ENOMEM: f"Free memory, or {_FEWER_WORKERS}",
    EPIPE: "Let the program that reads the output run on, or redirect the output to a file",
}
"""The remedy for an error of the operating system, by its errno."""


class UserError(Exception):
    """An error that a user can fix.

    The message names the file or key, what was found, what was expected and what to do. Entry
    points print it as one line and exit with ``status``. Any other exception that escapes is a bug
    and keeps its traceback.
    """

    status = 2


class StoppedError(UserError):
    """A run was told to stop; the same command resumes it.

    ``status`` is 128 plus the number of the signal, as in a shell: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def explain_system_error(error: OSError) -> UserError | None:
    """Return a UserError that names the file, the system's reason and the remedy.

    Returns None for an errno that is not in ``REMEDIES``: such an error is more likely a bug, and
    must keep its traceback.
    """
    if error.errno not in REMEDIES:
        return None
    subject = {
        ENOMEM: "memory",
        EMFILE: "open files of this process",
        ENFILE: "open files of this machine",
        EPIPE: "output",
    }.get(error.errno, "a file")
    file = error.filename2 or error.filename or subject
    return UserError(
        f"{file}: {error.strerror}. {REMEDIES[error.errno]}, then run the same command again."
    )


@contextmanager
def collect_errors(problems: list[str]) -> Iterator[None]:
    """If a UserError ends the block, add it to ``problems`` and continue after the block."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


def raise_all(problems: Iterable[str]) -> None:
    """Raise one UserError that lists all distinct problems, if there are any."""
    once = list(dict.fromkeys(problems))
    if len(once) == 1:
        raise UserError(once[0])
    if once:
        raise UserError("\n  ".join([f"{len(once)} problems:", *once]))
