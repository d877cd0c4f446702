"""The ledger of looks at test: what was scored on which test set, when and from which commit.

One CSV per attempt, kept in git and only ever appended to. A look is a recipe scored on a test set
for the first time; the same recipe trained again (on another machine, or with changed code) is
listed as reproduced and not counted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import write_text

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
    return parse_looks(path.read_text(encoding="utf-8"), str(path)) if path.exists() else []


def parse_looks(text: str, source: str) -> list[tuple[str, Look]]:
    """As `read_looks`, from the ledger's text; ``source`` is the name in messages."""
    rows = list(csv.reader(io.StringIO(text)))
    if (
        not rows
        or tuple(rows[0]) != COLUMNS
        or any(len(row) != len(COLUMNS) or row[0] not in (LOOKED, REPRODUCED) for row in rows[1:])
    ):
        raise UserError(
            f"{source}: not a ledger of looks at test; expected the columns {','.join(COLUMNS)} "
            f"and '{LOOKED}' or '{REPRODUCED}' first in each line. After a merge keep the lines "
            "of both sides; else `git checkout` brings it back."
        )
    return [(row[0], Look(*row[1:])) for row in rows[1:]]


def record_look(path: Path, look: Look | None, known: Sequence[tuple[str, Look]] = ()) -> None:
    """Append a look to the ledger at ``path``, made if it is missing; None appends nothing.

    Weights that the ledger has for this recipe and test set add nothing. Lines of ``known`` that
    the ledger lacks are put back first.
    """
    lines = list(dict.fromkeys([*known, *read_looks(path)]))
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
    """How many recipes the ledger says were scored on the test tiles of ``dataset``.

    Each counts once for each test set, also where a merge of two branches has both list it as
    looked. A test set stays the same if the dataset is given another name.
    """
    looks = [look for _, look in read_looks(path)]
    test_sets = {look.test_set for look in looks if look.dataset == dataset}
    return len({(look.digest, look.test_set) for look in looks if look.test_set in test_sets})
