"""The exceptions that mean "the user can mend this"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that a user can mend.

    The message names the file or key, what was found, what was expected and what to do.
    Entry points print it as one line and exit with ``status``; anything else that escapes is a bug
    and keeps its traceback.
    """

    status = 2


class StoppedError(UserError):
    """A run that was told to stop, and that the same command goes on with.

    ``status`` is 128 and the number of the signal, as a shell has it: 143 for SIGTERM, 130 for
    Ctrl-C.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
