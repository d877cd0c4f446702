"""Entry points of the pipeline's stages: each reads parameters, calls the library, writes outputs.

Python imports this package before any of its modules. It puts the ``src`` beside it first on the
import path, so that a stage always runs the code of its own checkout: an editable install or a
PYTHONPATH names one folder for every clone and every queued experiment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Now: importing torch takes seconds, and the parent may have gone by then.
PARENT = os.getppid()
sys.path.insert(0, str(ROOT / "src"))


def stop(number: int, frame: object) -> None:
    """Print a line and exit with the status of a shell; open blocks are left in order."""
    print(f"error: stopped by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


# `python -m` sets this while it imports the package: a stage's imports take seconds.
if sys.argv[0] == "-m":
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(each, stop)


@contextmanager
def system_errors_explained() -> Iterator[None]:
    """Turn what the system refuses (a full disk, no permission, no memory) into a UserError."""
    from roofseg.core.errors import explain_system_error

    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # or Python's last flush would fail, with its status
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if explained := explain_system_error(error):
            raise explained from error
        raise


def run(main: Callable[[], None], *, reads_tiles: bool = False) -> None:
    """Run an entry point; a UserError becomes one message on stderr and exit status 2.

    Tiles of datasets (test among them) and test patches are sealed for every stage that does not
    set ``reads_tiles``: opening one raises SealedTestError. Stages that make, check or cut tiles
    set it. evaluate opens test patches and whole tiles through roofseg.evaluation.sealed_test.
    """
    from roofseg.core.errors import UserError
    from roofseg.core.guard import install_guard, raise_violation

    if not reads_tiles:
        tiles = [tiles for name in ("imgs", "msks") for tiles in Path().glob(f"data/*/{name}")]
        install_guard([Path("patches/test"), *tiles], stage=Path(sys.argv[0]).stem)
    try:
        with system_errors_explained():
            main()
        raise_violation()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
