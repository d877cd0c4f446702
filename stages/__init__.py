"""The entry points of DVC's stages: each reads parameters, calls the library and writes outputs.

Python imports this package before any of its modules, and this file puts the ``src`` beside it
first on the import path. So a stage always runs the code of its own checkout, even where an
editable install or PYTHONPATH names the same folder for every clone and queued experiment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARENT = os.getppid()  # read now: importing torch takes seconds, and the parent may end meanwhile
sys.path.insert(0, str(ROOT / "src"))


def stop(number: int, frame: object) -> None:
    """Handle a signal: print one line and exit as a shell reports it, leaving blocks in order."""
    print(f"error: stopped by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


# `python -m` runs a stage: handle signals from now on, since the stage's imports take seconds.
if sys.argv[0] == "-m":
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:  # `nohup` has a signal ignored
            signal.signal(each, stop)


def state_root() -> Path:
    """Where training runs keep their state: the folder ROOFSEG_STATE_DIR, or .state in the project.

    An experiment in a folder of its own (--temp, --queue) uses the .state of DVC_ROOT, the project
    that it was made from: a state outlives the experiment's folder.
    """
    folder = os.environ.get("ROOFSEG_STATE_DIR")
    if folder:
        return Path(folder).expanduser().resolve()
    return Path(os.environ.get("DVC_ROOT", "."), ".state")


def run(main: Callable[[], None], *, reads_tiles: bool = False) -> None:
    """Run a stage's ``main`` in the project that is the current folder.

    See `roofseg.core.entry_point.entry_point` for what is sealed to it and how errors end it.
    """
    from roofseg.core.entry_point import entry_point

    with entry_point(Path(sys.argv[0]).stem, project=Path(), reads_tiles=reads_tiles):
        main()
