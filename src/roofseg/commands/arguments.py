"""Argument types that several subcommands use. argparse adds the option's name to their errors."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from roofseg.core.files import expand_home, user_path
from roofseg.tiles.rasters import is_remote, name_parts


def number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """Make a parser of finite numbers from ``low`` to ``high``, both included."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            ends = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            expected = f"a number {ends}" if math.isfinite(low) else "a number"
            raise ArgumentTypeError(f"found {text!r}, expected {expected}")
        return value

    return parse


def count(text: str) -> int:
    """Read an argument that is a positive whole number."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"found {text!r}, expected a positive whole number")
    return int(text)


def local_path(text: str) -> Path:
    """Read a path on this machine (see `user_path`); s3://... would become a folder `s3:`."""
    if is_remote(text) or not text:
        raise ArgumentTypeError(
            f"found {text!r}, expected a path on this machine; copy files from or to an address "
            "with another program"
        )
    return user_path(text)


def raster_name(text: str) -> str:
    """Read the name of a raster, which GDAL opens: a path (see `user_path`) or an address.

    In the name of one of several rasters in a file, as GPKG:~/city.gpkg:roofs, the path may begin
    with ``~`` too.
    """
    if is_remote(text):
        return text
    if len(name_parts(text)) > 1:
        return re.sub(r'(?<=[:"])~[^:"]*', lambda found: expand_home(found[0]), text)
    return expand_home(text)
