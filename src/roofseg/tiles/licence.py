"""Licences of the weights and datasets that a model is made from.

A dataset states its licence in words, in ``data/NAME/LICENSE.md``. For programs, a line
``SPDX-License-Identifier: ID`` in that file names a licence of https://spdx.org/licenses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from roofseg.core.errors import UserError

CODE = "Apache-2.0"
NONE = "none"  # no weights, so no licence
OTHER = "other"  # a licence that is not on the SPDX list, or that nobody has stated

LICENCE_FILE = "LICENSE.md"
UNSTATED = (
    "Nobody has said yet who made these tiles and what may be done with them. Write it here.\n"
)
SPDX_LINE = re.compile(r"^SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+-]+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Licence:
    """``spdx`` is an SPDX identifier, `OTHER` or `NONE`; ``terms`` states the licence in words."""

    spdx: str
    terms: str


def read_licence(dataset: Path) -> Licence:
    """Read LICENSE.md in the folder of a dataset.

    Raises UserError if the file is missing, empty or not text.
    """
    path = dataset / LICENCE_FILE
    try:
        text = path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Save it as text in UTF-8.") from None
    if not text:
        raise UserError(
            f"{path}: {'empty' if path.is_file() else 'no such file'}; expected a few words on who "
            "made these tiles and what may be done with them, which the model cards repeat. If "
            "nobody knows, write that."
        )
    line = SPDX_LINE.search(text)
    return Licence(line[1] if line else OTHER, SPDX_LINE.sub("", text).strip())


def declared_licence(text: str) -> Licence:
    """The licence of weights: ``text`` is its SPDX identifier, or states the terms in words."""
    if SPDX_LINE.fullmatch(f"SPDX-License-Identifier: {text}"):
        return Licence(text, f"Weights under the licence {text}.")
    return Licence(OTHER, text)


def licence_of_weights(*parts: Licence) -> str:
    """SPDX identifier of weights that this code made from ``parts``.

    It is `CODE` if all parts have the licence of the code or hold no weights, otherwise `OTHER`.
    """
    identifiers = {CODE, *(part.spdx for part in parts)} - {NONE}
    return CODE if identifiers == {CODE} else OTHER
