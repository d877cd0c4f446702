"""How stages and commands run: what is sealed to them, and how their errors end the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from roofseg.core.errors import UserError, explain_system_error
from roofseg.core.guard import install_guard, raise_violation


@contextmanager
def system_errors_explained() -> Iterator[None]:
    """Turn what the system refuses (a full disk, no permission, no memory) into a UserError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # or Python's last flush would fail, with its status
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if explained := explain_system_error(error):
            raise explained from error
        raise


@contextmanager
def entry_point(name: str, *, project: Path, reads_tiles: bool) -> Iterator[None]:
    """Run the block as the body of a stage or command.

    Unless it ``reads_tiles``, the test patches and the tiles of all datasets are sealed to it:
    opening one raises SealedTestError. Only what brings, checks, cuts or maps tiles reads them;
    evaluate opens test through `roofseg.evaluation.sealed_split`.

    A UserError ends the process with one message on stderr and the status of the error.

    Args:
        name: of the stage or command, for messages.
        project: the project's folder, which holds patches/ and data/.
        reads_tiles: whether it may open tiles and test patches.
    """
    if not reads_tiles:
        tiles = [tiles for kind in ("imgs", "msks") for tiles in project.glob(f"data/*/{kind}")]
        install_guard([project / "patches" / "test", *tiles], stage=name)
    try:
        with system_errors_explained():
            yield
        raise_violation()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
