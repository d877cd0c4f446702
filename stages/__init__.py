"""The entry points of DVC's stages. A stage reads parameters, calls the library, writes outputs.

Python imports this package before any of its modules, and this file puts the folder ``src`` beside
it first on the import path. So a stage always runs the code of its own checkout, even if an
editable install or PYTHONPATH points every clone and queued experiment to one folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARENT = os.getppid()  # read now: importing torch takes seconds, and the parent may end meanwhile
sys.path.insert(0, str(ROOT / "src"))


from roofseg.core.entry_point import entry_point  # noqa: E402
from roofseg.core.files import user_path  # noqa: E402
from roofseg.core.signals import exit_on_stop  # noqa: E402

# With `python -m stages.NAME`, handle signals from here on: the imports of a stage take seconds.
if sys.argv[0] == "-m":
    exit_on_stop()


def state_root() -> Path:
    """The folder where training runs keep their state: ROOFSEG_STATE_DIR, or .state in the project.

    A DVC experiment that runs in a copy of the project (--temp, --queue) uses the .state of the
    original project, DVC_ROOT, so that its state outlives the copy.
    """
    folder = os.environ.get("ROOFSEG_STATE_DIR")
    if folder:
        return user_path(folder).resolve()
    return Path(os.environ.get("DVC_ROOT", "."), ".state")


def run(main: Callable[[], None], *, reads_tiles: bool = False) -> None:
    """Run a stage's ``main``; the current folder is the project.

    `roofseg.core.entry_point.entry_point` says which files are sealed and how errors are reported.
    Torch takes seconds to import, so ``main`` imports modules that need it after it has read the
    parameters: a misspelt key is reported at once.
    """
    with entry_point(Path(sys.argv[0]).stem, project=Path(), reads_tiles=reads_tiles):
        main()
