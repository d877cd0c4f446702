"""Start a stage that was run as a script anew, as DVC runs it: as a module, in the project's root.

`python stages/NAME.py`, or an IDE's Run button, puts this folder first on the import path. So the
stage's first import of `roofseg` finds this file, and never the package.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

THIS = Path(__file__).resolve()
ROOT = THIS.parent.parent
script = Path(sys.argv[0]).resolve()
if script == THIS or script not in THIS.parent.glob("*.py"):
    raise ModuleNotFoundError(f"{THIS.parent}: is no folder of packages; run Python in {ROOT}")
os.chdir(ROOT)
os.execv(sys.executable, [sys.executable, "-m", f"stages.{script.stem}", *sys.argv[1:]])
