"""The ledger of looks at test: which recipe was scored on which test set, when, at which commit.

Each attempt has one CSV file, which is kept in git and only ever appended to. A look is the first
score of a recipe on a test set. A later score of the same recipe, trained again on another machine
or with changed code, is listed as reproduced and not counted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import write_rows

LOOKED, REPRODUCED = "looked", "reproduced"


@dataclass(frozen=True)
class Look:
    """One score of a model on test.

    Attributes:
        digest: the recipe digest of the model.
        training_inputs: SHA-256 (64 hex digits) of everything that training read.
        weights: SHA-256 of model.safetensors.
        dataset: the name of the dataset.
        test_set: SHA-256 of the files in patches/test.
        time: UTC in ISO 8601.
        revision: the git commit.
        experiment: DVC's name of the experiment, or empty.
    """

    digest: str
    training_inputs: str
    weights: str
    dataset: str
    test_set: str
    time: str
    revision: str
    experiment: str


LEDGER_COLUMNS = ("look", *(field.name for field in fields(Look)))


def read_looks(path: Path) -> list[tuple[str, Look]]:
    """Read a ledger as pairs of `LOOKED` or `REPRODUCED` and a `Look`; none if there is no file.

    Raises:
        UserError: the file is no ledger, for example because it holds git's conflict markers.
    """
    return parse_looks(path.read_text(encoding="utf-8"), str(path)) if path.exists() else []


def parse_looks(text: str, source: str) -> list[tuple[str, Look]]:
    """Parse the text of a ledger as `read_looks` does; ``source`` names it in messages."""
    header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    if (
        tuple(header) != LEDGER_COLUMNS
        or any(len(row) != len(LEDGER_COLUMNS) for row in rows)
        or any(row[0] not in (LOOKED, REPRODUCED) for row in rows)
    ):
        raise UserError(
            f"{source}: not a ledger of looks at test; expected the columns "
            f"{','.join(LEDGER_COLUMNS)} and '{LOOKED}' or '{REPRODUCED}' at the start of each "
            "line. After a merge, keep the lines of both sides; otherwise restore the file with "
            "`git checkout`."
        )
    return [(row[0], Look(*row[1:])) for row in rows]


def record_look(path: Path, look: Look | None, known: Sequence[tuple[str, Look]] = ()) -> None:
    """Append a look to a ledger.

    Args:
        path: the ledger; it is created if it is missing.
        look: the look to append; None, or a look whose weights are already listed for its recipe
            and test set, appends nothing.
        known: lines that the ledger must have; those that it lacks are added first.
    """
    lines = list(dict.fromkeys([*known, *read_looks(path)]))
    if look is not None:
        same = [
            old for _, old in lines if (old.digest, old.test_set) == (look.digest, look.test_set)
        ]
        if look.weights not in {old.weights for old in same}:
            lines.append((REPRODUCED if same else LOOKED, look))
    write_rows(path, LEDGER_COLUMNS, ([kind, *asdict(old).values()] for kind, old in lines))


def count_looks(path: Path, dataset: str) -> int:
    """Count the recipes that were scored on the test tiles of ``dataset``.

    A recipe counts once for each test set, even if it is listed as looked twice (after a merge of
    two branches). Renaming a dataset does not make its test set a new one.
    """
    looks = [look for _, look in read_looks(path)]
    test_sets = {look.test_set for look in looks if look.dataset == dataset}
    return len({(look.digest, look.test_set) for look in looks if look.test_set in test_sets})
