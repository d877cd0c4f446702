"""The two tiers of the tests: `make test` runs some cases of some tests, `make test-all` all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(values: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """The parameters of a test, of which only those in ``fast`` run in `make test`."""
    return [
        value if value in fast else pytest.param(value, marks=pytest.mark.whole) for value in values
    ]
