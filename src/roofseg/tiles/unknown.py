"""Which value in the masks of a dataset means that nobody has labelled a pixel.

A dataset declares it by one number in ``msks/unknown.txt``. The file lies among the masks, so DVC
keeps the two together and cuts new patches when the number changes. Without it, masks hold
background and building alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from roofseg.core.errors import UserError
from roofseg.core.files import write_text

UNKNOWN_FILE = "unknown.txt"


def read_unknown(masks: Path) -> float | None:
    """Read the value that the folder ``masks`` declares for unknown pixels; None without a file.

    Raises UserError if the file does not hold one number, or 0, which is background.
    """
    path = masks / UNKNOWN_FILE
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        value = parse_unknown(text)
    except ValueError:
        raise UserError(
            f"{path}: found {text[:40]!r}; expected one number: the value in these masks of pixels "
            "that nobody has labelled, such as 127. It is not 0, which is background. Remove the "
            "file if all pixels are labelled."
        ) from None
    return value


def parse_unknown(text: str) -> float:
    """Read a value for unknown pixels, a number (or nan) other than 0; ValueError if it is none."""
    value = float(text)
    if value == 0 or math.isinf(value):
        raise ValueError(text)
    return value


def write_unknown(masks: Path, value: float) -> None:
    """Declare the value of unknown pixels for the masks in a folder."""
    write_text(masks / UNKNOWN_FILE, f"{value:g}\n")


def holds_value(values: npt.NDArray[Any], unknown: float) -> npt.NDArray[np.bool_]:
    """Where an array holds the value ``unknown``, which may be NaN."""
    found: npt.NDArray[np.bool_] = np.isnan(values) if math.isnan(unknown) else values == unknown
    return found
