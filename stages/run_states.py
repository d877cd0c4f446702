"""Where the stages keep the states of training runs."""

from __future__ import annotations

import os
from pathlib import Path


def state_root() -> Path:
    """The folder that ROOFSEG_STATE_DIR names, or .state in the project.

    An experiment in a folder of its own (--temp, --queue) uses the .state of DVC_ROOT, the project
    that it was made from: a state outlives the experiment's folder.
    """
    folder = os.environ.get("ROOFSEG_STATE_DIR")
    if folder:
        return Path(folder).expanduser().resolve()
    return Path(os.environ.get("DVC_ROOT", "."), ".state")
