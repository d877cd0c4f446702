"""The only way to the test patches: they open for an attempt whose recipe is final and committed.

Only stages/evaluate.py imports this module. A recipe is final when ``final.<attempt>`` in the
params.yaml of the current git commit holds the recipe digest of the model to score. Whatever is
not committed (``dvc exp run -S ...``) cannot open them, so no tuning loop reads test, and every
look at it has a commit before it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from roofseg.errors import UserError
from roofseg.patches import Patch, read_patches
from roofseg.recipe import parse_params


def committed_digest(attempt: str, folder: Path) -> str | None:
    """``final.<attempt>`` in the params.yaml of HEAD; None outside git, or where it is not set."""
    command = ["git", "show", "HEAD:./params.yaml"]
    try:
        shown = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:  # no git here
        return None
    if shown.returncode != 0:
        return None
    return parse_params(shown.stdout, source="params.yaml of HEAD").final.get(attempt)


def open_test(patches: Path, *, attempt: str, digest: str, final: str | None) -> list[Patch] | None:
    """The test patches below the folder ``patches``, or None where they stay sealed.

    ``digest`` is the recipe digest of the trained model, ``final`` the value of
    ``final.<attempt>`` in the parameters in force. Raises UserError where that value is not the
    committed one: then it opens nothing, and says to commit.
    """
    if final is None:
        return None
    committed = committed_digest(attempt, Path.cwd())
    if final != committed:
        raise UserError(
            f"params.yaml: final.{attempt} is {final!r} here, but {committed or 'null'!r} in the "
            "current git commit. The test split opens only for a digest that is committed: "
            "`git commit params.yaml`, then `dvc repro`; or set it back to null."
        )
    if final != digest:
        return None
    return read_patches(patches / "test")
