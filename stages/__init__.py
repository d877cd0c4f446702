"""The pipeline's entry points: each reads params.yaml, calls the library and writes outputs.

Importing this package puts the ``src`` folder beside it first on the import path, so that a stage
always runs the code of its own checkout: an editable install, or a PYTHONPATH, names one folder
for every clone and every queued experiment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

if TYPE_CHECKING:
    from roofseg.recipe import Params


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate the parameters in force."""
    from roofseg.errors import UserError
    from roofseg.recipe import parse_params

    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); stages run from the folder that holds dvc.yaml. "
            "`make profile NAME=sample` makes a params.yaml."
        ) from None
    return parse_params(text, source=str(path))


def run(main: Callable[[], None]) -> None:
    """Run an entry point; a UserError becomes one message on stderr and exit status 2."""
    from roofseg.errors import UserError

    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
