"""Errors that a user can fix, and how errors of the operating system become such errors."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Python raises these errors of write(2) without the name of the file.
DISK_FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)
SHOWN = 10  # problems in one message

# Errors that training meets less often with fewer workers.
FEWER_WORKERS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_PERMISSIONS = "Change the permissions of that file or of its folder"
REMEDIES = {
    errno.ENOSPC: "Free space on that disk",
    errno.EDQUOT: "Free space on that disk, or raise your quota",
    errno.EFBIG: "Raise the limit on file sizes (`ulimit -f`), or use a disk for larger files",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EEXIST: "Move away the file or folder that has this name",
    errno.EISDIR: "Move that folder away: a file must have this name",
    errno.ENOTDIR: "Move away the file that stands where a folder of this path must be",
    errno.ENAMETOOLONG: "Use a shorter name",
    errno.EMFILE: "Raise the limit (`ulimit -n`)",
    errno.ENFILE: "Close other programs",
    errno.EROFS: "Use a folder on a file system that is not read-only",
    errno.EIO: "Check the disk: it failed to read or write",
    errno.ENOMEM: "Free memory",
    errno.EAGAIN: "Raise the limit on processes (`ulimit -u`)",
    errno.EPIPE: "Let the program that reads the output run on, or redirect the output to a file",
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
    """Return a UserError with the file, the system's reason and the remedy.

    An errno without a remedy is more likely a bug, which must keep its traceback: returns None.
    """
    if error.errno not in REMEDIES:
        return None
    subject = {
        errno.ENOMEM: "memory",
        errno.EAGAIN: "processes of this user",
        errno.EMFILE: "open files of this process",
        errno.ENFILE: "open files of this machine",
        errno.EPIPE: "output",
    }.get(error.errno, "a file")
    file = error.filename2 or error.filename or subject
    remedy = REMEDIES[error.errno]
    if error.errno in FEWER_WORKERS:
        remedy += ", or lower `workers` in params.yaml"
    return UserError(f"{file}: {error.strerror}. {remedy}, then run the same command again.")


@contextmanager
def collect_errors(problems: list[str]) -> Iterator[None]:
    """If a UserError ends the block, add it to ``problems`` and continue after the block."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


def raise_all(problems: Iterable[str]) -> None:
    """Raise one UserError that lists the distinct problems, if any; many are cut at SHOWN."""
    once = list(dict.fromkeys(problems))
    if len(once) == 1:
        raise UserError(once[0])
    if once:
        rest = [f"and {len(once) - SHOWN} more"] if len(once) > SHOWN else []
        raise UserError("\n  ".join([f"{len(once)} problems:", *once[:SHOWN], *rest]))
