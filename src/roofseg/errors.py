"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that a user can mend.

    The message names the file or key, what was found, what was expected and what to do.
    Entry points print it as one line and exit with status 2; anything else that escapes is a bug
    and keeps its traceback.
    """
