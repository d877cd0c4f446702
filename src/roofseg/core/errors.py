"""Errors that a user can fix, and the errors of the operating system told as such."""

from __future__ import annotations

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

# Errors of write(2), which do not say which file was written.
DISK_FULL = (EDQUOT, EFBIG, ENOSPC)

_PERMISSIONS = "Change the permissions of that file or of its folder"
_IN_THE_WAY = "Move away what is in its place"
_OPEN_FILES = "Raise the limit (`ulimit -n`) or lower `workers` in params.yaml"
REMEDIES = {
    **dict.fromkeys(DISK_FULL, "Make room on its disk, or raise the limit"),
    **dict.fromkeys((EACCES, EPERM), _PERMISSIONS),
    **dict.fromkeys((EEXIST, EISDIR, ENOTDIR), _IN_THE_WAY),
    **dict.fromkeys((EMFILE, ENFILE), _OPEN_FILES),
    ENAMETOOLONG: "Use a shorter name",
    EROFS: "Work in a folder of a file system that can be written",
    EIO: "Check the disk: it failed to read or write",
    ENOMEM: "Free memory, or lower `workers` in params.yaml",
    EPIPE: "Do not close what reads the output; to keep the output, send it to a file",
}
"""What to do about an error of the system, by its errno."""


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
    """A UserError that says what the system refused, for which file, and what to do about it.

    None for an errno that is not in ``REMEDIES``: such an error is more likely a bug, and must keep
    its traceback.
    """
    if error.errno not in REMEDIES:
        return None
    subject = {
        ENOMEM: "memory",
        EMFILE: "open files of this process",
        ENFILE: "open files of this machine",
        EPIPE: "output",
    }.get(error.errno, "an output")
    file = error.filename2 or error.filename or subject
    return UserError(
        f"{file}: {error.strerror}. {REMEDIES[error.errno]}, then run the same command again."
    )
