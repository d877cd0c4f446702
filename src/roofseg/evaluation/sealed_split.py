"""Open the test patches for an attempt whose recipe is final and committed.

This is the only module that opens them, and only stages/evaluate.py imports it. A recipe is final
when ``final.<attempt>`` in the params.yaml of the current git commit equals the recipe digest of
the scored model. Uncommitted parameters or code cannot open test, nor can a copy of the project
that DVC makes for an experiment. So no tuning loop reads test, and every look at test has a commit
before it and a line in the ledger (`roofseg.results.ledger`).

Evaluation also gets its whole tiles from here: those of val, and those of test once their patches
are open.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from weakref import WeakSet

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file, sha256_files
from roofseg.core.guard import SealedTestError, unsealed
from roofseg.cutting.seen import PlacedTile, check_seen
from roofseg.patches import Patch, read_patches, read_seen_tiles
from roofseg.recipe.parsing import parse_params
from roofseg.results.ledger import Look, parse_looks, record_look
from roofseg.tiles.manifest import read_manifest
from roofseg.tiles.tile import TilePair, check_tile
from roofseg.tiles.unknown import read_unknown

# Paths that must be committed before test opens, so that the ledger's commit has the code.
CODE = ("src", "stages", "dvc.yaml")

# The test patches that were opened in this process.
_opened: WeakSet[Patch] = WeakSet()


class StaysSealed(Exception):  # noqa: N818 (not an error)
    """The test split is not opened; the message gives the reason."""


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
    """Open the test patches. This counts as a look at test, which the ledger records.

    The project is the current folder.

    Args:
        patches: the folder that holds test/.
        attempt: the name of the attempt.
        digest: the recipe digest of the trained model.
        final: ``final.<attempt>`` in params.yaml as it is now; None if not set.
        model: the folder with model.safetensors and recipe.json.
        dataset: the name of the dataset, for the ledger.
        ledger: the attempt's ledger of looks. It is created if it is missing, and lines that an
            earlier commit had are restored (``dvc exp apply`` can put an older file in its place).
        experiment: DVC's name of the running experiment, for the ledger; empty if there is none.
        copied: whether this is a copy of the project, such as DVC makes for ``--temp`` and
            ``--queue``. Test then stays sealed, since the copy's ledger can get lost.

    Raises:
        StaysSealed: the recipe is not final, there is no git commit, or this is a copy.
        UserError: ``final`` differs from the committed value, or there is uncommitted code.
    """
    record_look(ledger, None, known=_committed_looks(ledger))
    if final is None:
        raise StaysSealed(
            f"this recipe is not final. To open it, run `roofseg finalize {attempt}`, commit "
            "params.yaml and run `dvc repro`."
        )
    try:
        revision = _git("rev-parse", "HEAD").strip()
        text = _git("show", "HEAD:./params.yaml")
    except _GitError as error:
        raise StaysSealed(f"it opens only for a committed recipe, and git says: {error}") from None
    committed = parse_params(text, source="params.yaml of HEAD").final.get(attempt)
    if final != committed:
        raise UserError(
            f"params.yaml: final.{attempt} is {final!r} here, but {committed or 'null'} in the "
            "current git commit. The test split opens only for a committed digest: run `git commit "
            "params.yaml`, then `dvc repro`; or set it back to null."
        )
    if final != digest:
        raise StaysSealed(f"this recipe ({digest}) is not the one that is final ({final}).")
    if copied:
        raise StaysSealed("this is a copy of the project; `dvc repro` in the workspace opens it.")
    record = read_json(model / "recipe.json")
    prior = record.get("prior", {})
    # The record of a declared prior pins its source (a commit of the hub, for example).
    records = [f"weights/{prior['prior']}.json"] if prior.get("declared") else []
    if changed := _git("status", "--porcelain", "--", *CODE, *records):
        files = ", ".join(line[3:] for line in changed.splitlines())
        raise UserError(
            f"{files}: not committed. The test split opens only for committed code and records of "
            f"priors: commit them, then `dvc repro`; or set final.{attempt} back to null."
        )
    look = {
        "digest": digest,
        "training_inputs": record["training_inputs"],
        "weights": sha256_file(model / "model.safetensors"),
        "dataset": dataset,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision,
        "experiment": experiment,
    }
    with unsealed():
        opened = read_patches(patches / "test")
        test_set = sha256_files([patches / "test"])
    # Record the look before any score is computed: a run killed later has still looked.
    record_look(ledger, Look(**look, test_set=test_set))
    _opened.update(opened)
    return opened


def full_tiles(
    patches: Sequence[Patch], *, dataset: Path, listing: Path, model: Path
) -> list[TilePair]:
    """Find the whole tiles that patches were cut from, and check that they have not changed.

    Args:
        patches: patches of val, or patches of test that `open_test` returned.
        dataset: the folder with imgs/ and msks/.
        listing: patches/tiles.csv (`roofseg.tiles.manifest`).
        model: the folder of the model that is scored.

    Raises:
        SealedTestError: a tile is in test, and its patch was not opened.
        UserError: a tile is missing, differs from the file that its patch was cut from, overlaps a
            tile of another split (it would show ground of that split, which may be sealed), or
            shows ground that the model or one before it has learnt from.
    """
    if not patches:
        return []
    listed = read_manifest(listing)
    with unsealed():
        unknown = read_unknown(dataset / "msks")
    pairs, placed = [], []
    for patch in patches:
        tile = listed.get(patch.tile)
        if tile is None:
            raise UserError(
                f"{listing}: lacks tile {patch.tile}, so it does not belong to these patches. Run "
                "`dvc checkout patches` to restore both, or `dvc repro make_patches` to make them."
            )
        if tile.split != "val" and patch not in _opened:
            raise SealedTestError(f"tile {tile.tile} is in {tile.split} and must not be scored")
        if tile.shared:
            raise UserError(
                f"{dataset}: tile {tile.tile} ({tile.split}) overlaps {tile.shared} of another "
                "split, so it cannot be scored whole. Set `evaluate_full_tiles: false` in "
                "params.yaml; the patches do not overlap."
            )
        image, mask = dataset / "imgs" / tile.image, dataset / "msks" / tile.mask
        pair = TilePair(tile.tile, tile.split, image, mask, unknown)
        _check_same(pair.image, tile.image_sha256)
        _check_same(pair.mask, tile.mask_sha256)
        pairs.append(pair)
        with unsealed():
            grid, _ = check_tile(pair, patch_size=1)
        placed.append(PlacedTile(tile.tile, tile.split, tile.image_sha256, grid))
    # Training compared the patches alone with the tiles that earlier models have seen.
    remedy = "Set `evaluate_full_tiles: false` in params.yaml to score patches only."
    check_seen(read_seen_tiles(model / "tiles.csv"), placed, f"{model}: this model", remedy)
    return pairs


def _check_same(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, but `evaluate_full_tiles: true` in params.yaml scores whole "
            f"tiles. Get it with `dvc pull {path}`, or set `evaluate_full_tiles: false` to score "
            "patches only."
        )
    with unsealed():
        found = sha256_file(path)
    if found != sha256:
        raise UserError(
            f"{path}: not the file that its patch was cut from (SHA-256 {found}, expected "
            f"{sha256}). Restore that file with `dvc checkout {path}`, or cut new patches with "
            "`dvc repro make_patches`."
        )


class _GitError(Exception):
    """A git command failed; the message is the first line of its stderr."""


def _git(*command: str) -> str:
    """Run git in the current folder and return what it prints."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        raise _GitError("git: command not found") from None
    if done.returncode:
        raise _GitError(done.stderr.partition("\n")[0])
    return done.stdout


def _committed_looks(ledger: Path) -> list[tuple[str, Look]]:
    """All lines that the ledger had in any commit up to HEAD, oldest first; none without git."""
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
