"""The ledger of looks at test: what was scored on which test set, when and from which commit.

One CSV per attempt, kept in git and only ever appended to. A look is a recipe scored on a test set
for the first time; the same recipe trained again (on another machine, or with changed code) is
listed as reproduced and not counted.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from roofseg.errors import UserError
from roofseg.files import write_text

LOOKED, REPRODUCED = "looked", "reproduced"


@dataclass(frozen=True)
class Look:
    """A model that was scored on test.

    ``digest`` is that of its recipe; ``training_inputs``, ``weights`` and ``test_set`` are SHA-256
    (64 hex digits) of all that training read, of model.safetensors, and of patches/test. ``time``
    is UTC in ISO 8601, ``revision`` the git commit, ``experiment`` DVC's name of it or empty.
    """

    digest: str
    training_inputs: str
    weights: str
    dataset: str
    test_set: str
    time: str
    revision: str
    experiment: str


COLUMNS = ("look", *(field.name for field in fields(Look)))


def read_looks(path: Path) -> list[tuple[str, Look]]:
    """The ledger's lines as ("looked" or "reproduced", Look); none where there is no file.

    Raises UserError for a file that is no ledger, such as one with the marks of a git merge.
    """
    if not path.exists():
        return []
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    if (
        not rows
        or tuple(rows[0]) != COLUMNS
        or any(len(row) != len(COLUMNS) or row[0] not in (LOOKED, REPRODUCED) for row in rows[1:])
    ):
        raise UserError(
            f"{path}: not a ledger of looks at test; expected the columns {','.join(COLUMNS)} and "
            f"'{LOOKED}' or '{REPRODUCED}' first in each line. After a git merge keep the lines of "
            "both sides; else `git checkout` brings it back."
        )
    return [(row[0], Look(*row[1:])) for row in rows[1:]]


def record_look(path: Path, look: Look | None) -> None:
    """Append a look to the ledger at ``path``; None only makes the file, should it be missing.

    Weights that the ledger has for this recipe and test set add nothing.
    """
    lines = read_looks(path)
    if look is not None:
        same = [
            old for _, old in lines if (old.digest, old.test_set) == (look.digest, look.test_set)
        ]
        if look.weights not in {old.weights for old in same}:
            lines.append((REPRODUCED if same else LOOKED, look))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([kind, *asdict(old).values()] for kind, old in lines)
    if not path.exists() or path.read_text(encoding="utf-8") != text.getvalue():
        write_text(path, text.getvalue())


def count_looks(path: Path, dataset: str) -> int:
    """How many recipes the ledger says were scored on the test tiles of ``dataset``."""
    return sum(kind == LOOKED and look.dataset == dataset for kind, look in read_looks(path))
