"""The report's sections on where its numbers come from, and the caveats at its top."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file
from roofseg.metrics import SCORED_SPLITS
from roofseg.pages.page import Cell, Commands, Prose, Section, Table, join_words
from roofseg.report.attempts import Attempt
from roofseg.report.headline import SPREAD, name_cell
from roofseg.report.leaderboard import Leaderboard
from roofseg.results.disclaimers import standard_caveats
from roofseg.results.ledger import LOOKED

HASH_DIGITS = 12  # digits to show of a SHA-256 or a commit

RESULT_PACKAGES = (
    "torch", "torchvision", "lightning", "segmentation-models-pytorch", "timm", "segment-anything",
    "albumentations", "opencv-python-headless", "rasterio", "numpy", "scipy", "pandas",
    "matplotlib", "dvc",
)  # fmt: skip
"""Packages of requirements.lock whose version can change a result."""


def lead(board: Leaderboard) -> str:
    """The first sentence: the number of attempts, the tiles, and the size of a patch."""
    val, test = (board.tile_counts[split] for split in ("val", "test"))
    opened = f"and {test} test tiles" if test else "tiles (test is sealed)"
    count, size = len(board.attempts), board.patch_size
    return (
        f"{count} attempt{'s' if count != 1 else ''}, scored on {val} validation {opened}, one "
        f"patch of {size} x {size} px per tile.{_labelled_text(board)}"
    )


def _labelled_text(board: Leaderboard) -> str:
    """Say how much of each split is labelled; empty if all of it is."""
    shares = {split: board.labelled(split) for split in board.splits}
    parts = [
        f"{share.mean():.1%} of {SCORED_SPLITS[split]} (least: {share.min():.1%}, {share.idxmin()})"
        for split, share in shares.items()
        if share.min() < 1
    ]
    if not parts:
        return ""
    return (
        f" Labelled pixels: {join_words(parts)}; nothing is "
        "scored on the others, nor are buildings that touch them."
    )


def caveats(board: Leaderboard) -> dict[str, str]:
    """The warnings that must come before any number, by their name."""
    without_sam = [attempt for attempt in board.attempts if attempt.recipe.without_sam]
    encoders = f"The encoder of {_names(without_sam)}" if without_sam else ""
    warnings = standard_caveats(board.dataset, encoders)
    if several := [attempt for attempt in board.attempts if attempt.look_count > 1]:
        warnings["Looked at test more than once"] = (
            f"{_names(several)}: scored on test with more than one recipe, or on an earlier "
            "version of these test tiles too. The test scores may be optimistic, because the "
            "earlier ones could have guided the later recipe."
        )
    warnings["One training each"] = (
        "Every score comes from one training with one seed, on tiles of one dataset. "
        f"{_spread_text(board)}"
    )
    return warnings


def _spread_text(board: Leaderboard) -> str:
    """Say what the spread over seeds is and whose is unknown, or how to measure it."""
    if not board.seed_spread:
        return "The spread over seeds was not measured here; `roofseg studies seeds` measures it."
    text = (
        f"The column `{SPREAD}` is the standard deviation of val IoU over trainings that differ "
        "only in their seed (`roofseg studies seeds`)"
    )
    # One study measured them all, so they share their overrides.
    if overrides := next(iter(board.seed_spread.values())).overrides:
        text += f", measured with {overrides} in place of the recipe's values"
    text += (
        ". A gap between two attempts that is smaller than this spread is not settled by one "
        "training."
    )
    if unknown := [attempt for attempt in board.ranked if attempt.name not in board.seed_spread]:
        text += (
            f" A dash means that it was not measured with the present recipe: {_names(unknown)}."
        )
    return text


def _names(attempts: Sequence[Attempt]) -> str:
    return join_words([attempt.name for attempt in attempts])


def looks(board: Leaderboard) -> Section:
    """The looks at test of every attempt."""
    rows: list[list[Cell | str]] = [
        [
            name_cell(attempt),
            Cell(look.digest, code=True),
            "look" if kind == LOOKED else kind,
            look.time[:10],
            Cell(look.revision[:HASH_DIGITS], code=bool(look.revision)),
            look.experiment,
        ]
        for attempt in board.ranked
        for kind, look in attempt.looks
    ]
    if not rows:
        return Section(
            "Looks at test", [Prose("None: no recipe is final, so the test split was not opened.")]
        )
    counts = ", ".join(f"{attempt.label} {attempt.look_count}" for attempt in board.ranked)
    header = ["attempt", "recipe", "", "day (UTC)", "commit", "experiment"]
    return Section(
        "Looks at test",
        [
            Prose(
                f"Number of recipes scored on these test tiles: {counts}. Test opens for a recipe "
                "only after its digest is committed, so every look has a commit before it."
            ),
            Table(
                "Every look at test. A recipe that was trained again (on another machine, or with "
                "changed code) is listed as reproduced and not counted.",
                header,
                rows,
                frozenset(header),
            ),
        ],
    )


def environment(board: Leaderboard, lock: Path) -> Section:
    """The inputs, hardware and versions that each attempt was trained with.

    Args:
        board: the leaderboard.
        lock: requirements.lock.

    Raises:
        UserError: there is no lock file.
    """
    rows: list[list[Cell | str]] = [
        [
            name_cell(attempt),
            Cell(attempt.record["digest"], code=True),
            Cell(attempt.record["training_inputs"][:HASH_DIGITS], code=True),
            attempt.training["torch"],
            f"{attempt.training['device']} ({attempt.training['processor']})",
            attempt.training["precision"],
        ]
        for attempt in board.ranked
    ]
    header = ["attempt", "recipe", "inputs", "torch", "device", "precision"]
    pins = ", ".join(f"{name} {version}" for name, version in _pins(lock).items())
    return Section(
        "Environment",
        [
            Table(
                "What each attempt was trained with. Recipe is the digest of its parameters, split "
                "and patch settings. Inputs is the SHA-256 of everything that training read, code "
                f"included (first {HASH_DIGITS} digits).",
                header,
                rows,
                frozenset(header),
            ),
            Prose(
                f"`requirements.lock` (SHA-256 `{sha256_file(lock)[:HASH_DIGITS]}`) pins {pins} "
                "and their dependencies, with hashes."
            ),
        ],
    )


def _pins(lock: Path) -> dict[str, str]:
    """The versions of `RESULT_PACKAGES` in a lock file."""
    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{lock}: no such file. Run `git checkout {lock}` to restore it.") from None
    versions = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, flags=re.MULTILINE))
    return {name: versions[name] for name in RESULT_PACKAGES if name in versions}


def reproduce(board: Leaderboard) -> Section:
    """The commands that reproduce the results."""
    one = f"train@{board.leader.name} evaluate@{board.leader.name}"
    return Section(
        "Reproduce",
        [
            Prose(
                "Run this in a clone of the project. The last commit that changed `dvc.lock` is "
                "the one of these results; `dvc.lock` has the hash of every input and output."
            ),
            Commands(
                [
                    "$ git checkout $(git log -1 --format=%H -- dvc.lock)",
                    "$ make repro              # from the tiles to this page",
                    "$ . .venv/bin/activate",
                    "$ dvc repro --force       # everything again, even where it is up to date",
                    f"$ dvc repro --force --single-item {one}    # one attempt",
                ]
            ),
            Prose(
                "On the same machine the same commit gives the same bytes, except for times. On "
                "another kind of processor or GPU scores differ slightly."
            ),
        ],
    )
