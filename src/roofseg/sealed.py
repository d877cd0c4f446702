"""The only way to the test patches: they open for an attempt whose recipe is final and committed.

Only stages/evaluate.py imports this module. A recipe is final when ``final.<attempt>`` in the
params.yaml of the current git commit holds the recipe digest of the model to score. Whatever is
not committed (``dvc exp run -S ...``) cannot open them, so no tuning loop reads test, and every
look at it has a commit before it and a line in the ledger (`roofseg.looks`).
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from roofseg.errors import UserError
from roofseg.files import read_json, sha256_file, sha256_files
from roofseg.guard import lifted
from roofseg.looks import Look, record_look
from roofseg.patches import Patch, read_patches
from roofseg.recipe import parse_params


def committed_digest(attempt: str, folder: Path) -> str | None:
    """``final.<attempt>`` in the params.yaml of HEAD; None outside git, or where it is not set."""
    shown = _git("show", "HEAD:./params.yaml", folder=folder)
    if shown is None:
        return None
    return parse_params(shown, source="params.yaml of HEAD").final.get(attempt)


def open_test(
    patches: Path,
    *,
    attempt: str,
    digest: str,
    final: str | None,
    model: Path,
    dataset: str,
    ledger: Path,
    experiment: str = "",
) -> list[Patch] | None:
    """The test patches, or None where they stay sealed. Opening them is a look, and is recorded.

    Args:
        patches: the folder with test/ in it.
        attempt: its name.
        digest: the recipe digest of the trained model.
        final: ``final.<attempt>`` in the parameters in force.
        model: the folder with model.safetensors and recipe.json.
        dataset: its name, for the ledger.
        ledger: the attempt's file of looks, made (without a line) if it is missing.
        experiment: DVC's name of the experiment that this is, for the ledger.

    Raises:
        UserError: ``final`` is not what is committed: then it opens nothing, and says to commit.
    """
    record_look(ledger, None)
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
    with lifted():
        opened = read_patches(patches / "test")
        test_set = sha256_files([patches / "test"])
    look = Look(
        digest=digest,
        training_inputs=read_json(model / "recipe.json")["training_inputs"],
        weights=sha256_file(model / "model.safetensors"),
        dataset=dataset,
        test_set=test_set,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=(_git("rev-parse", "HEAD", folder=Path.cwd()) or "").strip(),
        experiment=experiment,
    )
    # Before anybody sees a figure: a run that is killed later has looked all the same.
    record_look(ledger, look)
    return opened


def _git(*command: str, folder: Path) -> str | None:
    """What git prints; None where it fails, or is not there."""
    try:
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
