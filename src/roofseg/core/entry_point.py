"""How stages and commands run: what is sealed to them, and how their errors end the process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EFBIG,
    ENAMETOOLONG,
    ENOSPC,
    ENOTDIR,
    EPERM,
    EROFS,
)
from pathlib import Path

from roofseg.core import guard
from roofseg.core.errors import UserError

# Errors of the file system that a user can fix; any other OSError is a bug and keeps its traceback.
FIXABLE = {EACCES, EDQUOT, EEXIST, EFBIG, ENAMETOOLONG, ENOSPC, ENOTDIR, EPERM, EROFS}


@contextmanager
def file_system_errors_named() -> Iterator[None]:
    """Turn file system errors that a user can fix into UserErrors that name the file.

    On a full disk the system does not say which file it could not write; then the message says
    "an output".
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FIXABLE:
            raise
        raise UserError(
            f"{error.filename or 'an output'}: {error.strerror}. Fix that, then run it again."
        ) from None


@contextmanager
def entry_point(name: str, *, project: Path, reads_tiles: bool) -> Iterator[None]:
    """Run the block as the body of a stage or command.

    Unless it ``reads_tiles``, the test patches and the tiles of all datasets are sealed to it:
    opening one raises SealedTestError. Only what brings, checks, cuts or maps tiles reads them;
    evaluate opens test through `roofseg.evaluation.sealed_test`.

    A UserError ends the process with one message on stderr and the status of the error.

    Args:
        name: of the stage or command, for messages.
        project: the project's folder, which holds patches/ and data/.
        reads_tiles: whether it may open tiles and test patches.
    """
    if not reads_tiles:
        tiles = [tiles for kind in ("imgs", "msks") for tiles in project.glob(f"data/*/{kind}")]
        guard.seal([project / "patches" / "test", *tiles], stage=name)
    try:
        with file_system_errors_named():
            yield
        guard.check_unbroken()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
