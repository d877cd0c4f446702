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
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
PARENT = os.getppid()  # read now: importing torch takes seconds, and the parent may end meanwhile
sys.path.insert(0, str(ROOT / "src"))


from roofseg.core.entry_point import entry_point  # noqa: E402
from roofseg.core.errors import UserError  # noqa: E402
from roofseg.core.files import user_path  # noqa: E402
from roofseg.core.signals import exit_on_stop  # noqa: E402
from roofseg.core.terminal import print_error  # noqa: E402


def _explain_lack(
    kind: type[BaseException], error: BaseException, at: TracebackType | None
) -> None:
    """Say in one line which package this Python lacks; show other errors as usual."""
    package = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    if not package or package.startswith(("roofseg", "stages")):
        sys.__excepthook__(kind, error, at)
        return
    print_error(
        f"{sys.executable} lacks the package {package}. Run stages with the project's Python: "
        f"`cd {ROOT} && source .venv/bin/activate`, which `make repro` installs."
    )
    sys.exit(2)


# With `python -m stages.NAME`, handle signals and missing packages from here on: the imports of a
# stage take seconds.
if sys.argv[0] == "-m":
    exit_on_stop()
    sys.excepthook = _explain_lack


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
    """Run a stage's ``main``; the current folder must be the project.

    `roofseg.core.entry_point.entry_point` says which files are sealed and how errors are reported.
    Torch takes seconds to import, so ``main`` imports modules that need it after it has read the
    parameters: a misspelt key is reported at once.
    """
    name = Path(sys.argv[0]).stem
    with entry_point(name, project=Path(), reads_tiles=reads_tiles):
        if not Path("dvc.yaml").is_file():
            raise UserError(
                f"{Path.cwd()}: no dvc.yaml here. Run stages in the root folder of a project: "
                f"`cd {ROOT}`, then `dvc repro`, or `python -m stages.{name}`."
            )
        main()
