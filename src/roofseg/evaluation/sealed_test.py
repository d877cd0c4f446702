"""The only way to the test patches: they open for an attempt whose recipe is final and committed.

And the only way for evaluation to whole tiles: to those of val, and to those of test once their
patches are open.

Only stages/evaluate.py imports this module. A recipe is final when ``final.<attempt>`` in the
params.yaml of the current git commit holds the recipe digest of the model to score. Parameters and
code that are not committed cannot open them, nor can a copy of the project that DVC makes for an
experiment: so no tuning loop reads test, and every look at it has a commit before it and a line in
the ledger (`roofseg.results.test_ledger`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from weakref import WeakSet

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file, sha256_files
from roofseg.core.guard import SealedTestError, unsealed
from roofseg.patches import Patch, read_crops, read_patches
from roofseg.recipe.params import parse_params
from roofseg.results.test_ledger import Look, parse_looks, record_look
from roofseg.tiles.manifest import read_listing
from roofseg.tiles.rasters import TilePair

# What the ledger's revision has to hold, beside the parameters.
CODE = ("src", "stages", "dvc.yaml")

# The test patches that were opened in this process.
_opened: WeakSet[Patch] = WeakSet()


class StaysSealed(Exception):  # noqa: N818 (it is no error)
    """Test is not opened; the message says why."""


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
    copied: bool = False,
) -> list[Patch]:
    """The test patches. Opening them is a look, and is recorded.

    The project is the current folder.

    Args:
        patches: the folder with test/ in it.
        attempt: its name.
        digest: the recipe digest of the trained model.
        final: ``final.<attempt>`` in the parameters in force.
        model: the folder with model.safetensors and recipe.json.
        dataset: its name, for the ledger.
        ledger: the attempt's file of looks. It is made if it is missing, and gets back the lines
            that a commit before this one had (``dvc exp apply`` puts an older file in its place).
        experiment: DVC's name of the experiment that this is, for the ledger.
        copied: this is a copy of the project, such as DVC makes for ``--temp`` and ``--queue``:
            test stays sealed, since a line in its ledger can get lost with it.

    Raises:
        StaysSealed: the recipe is not final, there is no git commit, or this is a copy.
        UserError: ``final`` is not what is committed, or there is code that is not committed: then
            it opens nothing, and says to commit.
    """
    record_look(ledger, None, known=_committed_looks(ledger))
    if final is None:
        raise StaysSealed(
            f"this recipe is not final. To open it, `roofseg finalize {attempt}`, commit "
            "params.yaml, `dvc repro`."
        )
    try:
        revision = _git("rev-parse", "HEAD").strip()
        text = _git("show", "HEAD:./params.yaml")
    except _GitError as error:
        raise StaysSealed(f"it opens for a recipe in a git commit, and git says: {error}") from None
    committed = parse_params(text, source="params.yaml of HEAD").final.get(attempt)
    if final != committed:
        raise UserError(
            f"params.yaml: final.{attempt} is {final!r} here, but {committed or 'null'!r} in the "
            "current git commit. The test split opens only for a digest that is committed: "
            "`git commit params.yaml`, then `dvc repro`; or set it back to null."
        )
    if final != digest:
        raise StaysSealed(f"this recipe ({digest}) is not the one that is final ({final}).")
    if copied:
        raise StaysSealed("this is a copy of the project; `dvc repro` in the workspace opens it.")
    if changed := _git("status", "--porcelain", "--", *CODE):
        files = ", ".join(line[3:] for line in changed.splitlines())
        raise UserError(
            f"{files}: not committed. The test split opens only for code that is: `git commit`, "
            f"then `dvc repro`; or set final.{attempt} back to null."
        )
    look = {
        "digest": digest,
        "training_inputs": read_json(model / "recipe.json")["training_inputs"],
        "weights": sha256_file(model / "model.safetensors"),
        "dataset": dataset,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision,
        "experiment": experiment,
    }
    with unsealed():
        opened = read_patches(patches / "test")
        test_set = sha256_files([patches / "test"])
    # Before anybody sees a figure: a run that is killed later has looked all the same.
    record_look(ledger, Look(**look, test_set=test_set))
    _opened.update(opened)
    return opened


def ground_sampling(patches: Sequence[Patch], folder: Path) -> list[float]:
    """The ground sampling distance of each patch in metres per pixel, NaN where unknown.

    Args:
        patches: of val or test; of test, those that `open_test` gave.
        folder: where they were read from.

    Raises SealedTestError for test patches that were not opened.
    """
    opened = bool(patches) and all(patch in _opened for patch in patches)
    with unsealed() if opened else nullcontext():
        crops = read_crops(folder)
    return list(crops.set_index("tile").gsd[[patch.tile for patch in patches]])


def full_tiles(patches: Sequence[Patch], *, dataset: Path, listing: Path) -> list[TilePair]:
    """The whole tiles that patches of val or test were cut from, once they prove to be the same.

    Args:
        patches: of test, those that `open_test` gave: they are the key to their tiles.
        dataset: the folder with imgs/ and msks/.
        listing: patches/tiles.csv (`roofseg.tiles.manifest`).

    Raises:
        SealedTestError: a tile is in test, and its patch was not opened.
        UserError: a tile is not there, is no longer what its patch was cut from, or shows ground
            of another split's tile: whole, it would give away what is sealed.
    """
    listed = read_listing(listing)
    pairs = []
    for patch in patches:
        tile = listed.get(patch.tile)
        if tile is None:
            raise UserError(
                f"{listing}: lacks tile {patch.tile}, so it is not that of these patches. "
                "`dvc checkout patches` brings what belongs together, `dvc repro make_patches` "
                "makes it."
            )
        if tile.split != "val" and patch not in _opened:
            raise SealedTestError(f"tile {tile.tile} is in {tile.split}: it is not to be scored")
        if tile.shared:
            raise UserError(
                f"{dataset}: tile {tile.tile} ({tile.split}) shows ground of {tile.shared}, in "
                "another split, so it cannot be scored whole. Set `evaluate_full_tiles: false`; "
                "the patches do not overlap."
            )
        pair = TilePair(
            tile.tile, tile.split, dataset / "imgs" / tile.image, dataset / "msks" / tile.mask
        )
        _check_same(pair.image, tile.image_sha256)
        _check_same(pair.mask, tile.mask_sha256)
        pairs.append(pair)
    return pairs


def _check_same(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, but `evaluate_full_tiles` in params.yaml has whole tiles "
            f"scored. Get it with `dvc pull {path}`, or set that to false: patches are enough."
        )
    with unsealed():
        found = sha256_file(path)
    if found != sha256:
        raise UserError(
            f"{path}: not the file that its patch was cut from (SHA-256 {found}, expected "
            f"{sha256}). Get that one with `dvc checkout {path}`, or run `dvc repro make_patches`."
        )


class _GitError(Exception):
    """What git said."""


def _git(*command: str) -> str:
    """What git prints in the current folder."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        raise _GitError("git: command not found") from None
    if done.returncode:
        raise _GitError(done.stderr.partition("\n")[0])
    return done.stdout


def _committed_looks(ledger: Path) -> list[tuple[str, Look]]:
    """All lines that the ledger had in any commit up to HEAD, the oldest first."""
    try:
        revisions = _git("rev-list", "--reverse", "HEAD", "--", str(ledger)).split()
        texts = [
            _git("show", f"{revision}:./{ledger}")
            for revision in revisions
            if _git("ls-tree", revision, "--", str(ledger))  # it may have been removed there
        ]
    except _GitError:
        return []
    lines = [line for text in texts for line in parse_looks(text, f"{ledger} in git")]
    return list(dict.fromkeys(lines))
