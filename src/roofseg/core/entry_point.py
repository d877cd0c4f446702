"""Run a stage or a command: seal the files it may not open, and report its errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from roofseg.core.errors import UserError, explain_system_error
from roofseg.core.guard import install_guard, raise_violation
from roofseg.core.progress import bars_closed
from roofseg.core.terminal import print_error


@contextmanager
def system_errors_explained() -> Iterator[None]:
    """Turn errors of the operating system (disk full, no permission) into a UserError.

    An OSError that is not in `roofseg.core.errors.REMEDIES` passes through unchanged.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Python flushes stdout at exit; if that failed, it would replace our exit status.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if explained := explain_system_error(error):
            raise explained from error
        raise


@contextmanager
def entry_point(name: str, *, project: Path, reads_tiles: bool) -> Iterator[None]:
    """Run the block as the body of a stage or command.

    Unless ``reads_tiles`` is set, the test patches and the tiles of all datasets are sealed:
    opening one raises SealedTestError. Only stages and commands that fetch, check, cut or map tiles
    set it; evaluate opens the test patches through `roofseg.evaluation.sealed_split`.

    A UserError ends the process: its message is printed on stderr, and its ``status`` becomes the
    exit status.

    Args:
        name: the name of the stage or command, for messages.
        project: the project's folder, which holds patches/ and data/.
        reads_tiles: whether the block may open tiles and test patches.
    """
    if not reads_tiles:
        tiles = [*project.glob("data/*/imgs"), *project.glob("data/*/msks")]
        install_guard([project / "patches" / "test", *tiles], name)
    try:
        with bars_closed(), system_errors_explained():
            yield
        raise_violation()
    except UserError as error:
        print_error(str(error))
        sys.exit(error.status)
