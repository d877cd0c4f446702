"""What the report says first, and what it records at its end: looks, environment, commands."""

from __future__ import annotations

from collections.abc import Sequence

from roofseg.metrics import SPLITS
from roofseg.pages.page import Cell, Commands, Prose, Section, Table
from roofseg.report.cells import joined, name_cell
from roofseg.report.results import Attempt, Results
from roofseg.results.disclaimers import SYNTHETIC, SYNTHETIC_DATASETS, WITHOUT_SAM
from roofseg.results.test_ledger import LOOKED

DIGITS = 12  # of a hash


def lead(results: Results) -> str:
    counts = {name: results.tile_counts.get(name) for name in SPLITS}
    opened = f"and {counts['test']} test tiles" if counts["test"] else "tiles; test is sealed"
    return (
        f"{len(results.attempts)} attempts, scored on {counts['val']} validation {opened}, one "
        f"patch of {results.patch_size} x {results.patch_size} px each."
    )


def caveats(results: Results) -> dict[str, str]:
    """What a reader must know before any number."""
    found = {}
    if results.dataset in SYNTHETIC_DATASETS:
        found["Synthetic"] = SYNTHETIC[0].upper() + SYNTHETIC[1:]
    if without := [each for each in results.in_order if each.recipe.without_sam]:
        found["No SAM weights"] = f"The encoder of {_names(without)} {WITHOUT_SAM}"
    if several := [each for each in results.in_order if each.row["looks"] > 1]:
        found["Looked at test more than once"] = (
            f"More than one recipe of {_names(several)} was scored on these test tiles: its test "
            "scores are no longer those of tiles that nobody had looked at."
        )
    found["One training each"] = (
        "Every score is of one training with one seed, on few tiles of one dataset."
    )
    return found


def looks(results: Results) -> Section:
    rows: list[list[Cell | str]] = [
        [
            name_cell(each),
            Cell(look.digest, code=True),
            kind if kind != LOOKED else "look",
            look.time[:10],
            Cell(look.revision[:DIGITS], code=bool(look.revision)),
            look.experiment,
        ]
        for each in results.attempts
        for kind, look in each.looks
        if look.dataset == results.dataset
    ]
    if not rows:
        return Section(
            "Looks at test", [Prose("None: no recipe is final, and test was not opened.")]
        )
    counts = ", ".join(f"{each.label} {each.row['looks']}" for each in results.attempts)
    return Section(
        "Looks at test",
        [
            Prose(
                f"Recipes scored on these test tiles: {counts}. Test opens for a recipe only once "
                "its digest is committed, so every look has a commit before it."
            ),
            Table(
                "The ledger of looks. A recipe that was trained again (elsewhere, or with other "
                "code) is listed as reproduced and not counted.",
                ["attempt", "recipe", "", "day (UTC)", "commit", "experiment"],
                rows,
                frozenset({"attempt", "recipe", "", "day (UTC)", "commit", "experiment"}),
            ),
        ],
    )


def environment(results: Results) -> Section:
    rows: list[list[Cell | str]] = [
        [
            name_cell(each),
            Cell(each.record["digest"], code=True),
            Cell(each.record["training_inputs"][:DIGITS], code=True),
            each.record["result"]["torch"],
            each.record["result"]["device"],
            each.record["result"]["precision"],
        ]
        for each in results.attempts
    ]
    header = ["attempt", "recipe", "inputs", "torch", "device", "precision"]
    pins = ", ".join(f"{name} {version}" for name, version in results.pins.items())
    return Section(
        "Environment",
        [
            Table(
                "What each attempt was trained with. Recipe: the digest of its parameters, split "
                "and patch settings. Inputs: SHA-256 of all that training read, code included "
                f"(first {DIGITS} digits).",
                header,
                rows,
                frozenset(header),
            ),
            Prose(
                f"`requirements.lock` (SHA-256 `{results.lock_sha256[:DIGITS]}`) pins {pins}, and "
                "all that they need, with hashes."
            ),
        ],
    )


def reproduce(results: Results) -> Section:
    one = f"train@{results.leader.name} evaluate@{results.leader.name}"
    return Section(
        "Reproduce",
        [
            Prose(
                "In a clone of the project. The commit of these results is the last that changed "
                "`dvc.lock`, which has the hash of every input and output, this page among them."
            ),
            Commands(
                [
                    "$ git checkout $(git log -1 --format=%H -- dvc.lock)",
                    "$ make repro              # from the tiles to this page",
                    "$ . .venv/bin/activate",
                    "$ dvc repro --force       # all of it anew, whatever is up to date",
                    f"$ dvc repro --force --single-item {one}    # one attempt",
                ]
            ),
            Prose(
                "On the same machine the same commit gives the same bytes, but for times. On "
                "another kind of processor or GPU scores differ a little."
            ),
        ],
    )


def _names(attempts: Sequence[Attempt]) -> str:
    return joined([each.name for each in attempts])
