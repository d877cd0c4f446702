"""The pipeline's entry points: each reads parameters, calls the library and writes outputs.

Python imports this package before any module of it, and it puts the ``src`` beside it first on the
import path: so a stage always runs the code of its own checkout. (An editable install, or a
PYTHONPATH, names one folder for every clone and every queued experiment.)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EEXIST, EFBIG, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARENT = os.getppid()  # now: importing torch takes seconds, and the parent may be gone by then
sys.path.insert(0, str(ROOT / "src"))


def stop(number: int, frame: object) -> None:
    """End with a line and the status that a shell gives it; open blocks are left in order."""
    print(f"error: stopped by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


# Where `python -m` runs one of them: from here on, since their imports take seconds.
if sys.argv[0] == "-m":
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(each, stop)


@contextmanager
def refusals_named() -> Iterator[None]:
    """What the system refuses (no permission, a full disk, a file in the way) is a UserError.

    It names the file where the system does, which on a full disk it does not.
    """
    from roofseg.core.errors import UserError

    try:
        yield
    except OSError as error:
        if error.errno not in (EACCES, EDQUOT, EEXIST, EFBIG, ENOSPC, ENOTDIR, EPERM, EROFS):
            raise
        raise UserError(
            f"{error.filename or 'an output'}: {error.strerror}. Mend that, then run it again."
        ) from None


def run(main: Callable[[], None], *, reads_tiles: bool = False) -> None:
    """Run an entry point; a UserError becomes one message on stderr and exit status 2.

    Datasets' tiles (test among them) and the test patches are sealed to all that does not say
    ``reads_tiles``, as what brings, checks or cuts tiles does: opening one raises SealedTestError.
    evaluate gets at the patches, and at whole tiles, through roofseg.evaluation.sealed_test.
    """
    from roofseg.core import guard
    from roofseg.core.errors import UserError

    if not reads_tiles:
        tiles = [tiles for name in ("imgs", "msks") for tiles in Path().glob(f"data/*/{name}")]
        guard.seal([Path("patches/test"), *tiles], stage=Path(sys.argv[0]).stem)
    try:
        with refusals_named():
            main()
        guard.check_unbroken()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
