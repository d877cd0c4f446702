"""What the system refuses a stage, in the words of a mistake that a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from roofseg.errors import UserError


@contextmanager
def refusals_named(outputs: str) -> Iterator[None]:
    """What the system refuses (no permission, a full disk) is a UserError that names the file.

    ``outputs`` stands for the file where the system names none, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or outputs}: {error.strerror or error}. Mend the permissions or make "
            "room, then run it again."
        ) from None
