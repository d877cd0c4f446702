"""The two tiers of the tests: `make test` runs some cases of some tests, `make test-all` all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(values: Iterable[Any], whole: Collection[Any]) -> list[Any]:
    """The parameters of a test, of which those in ``whole`` wait for `make test-all`."""
    return [
        pytest.param(value, marks=pytest.mark.whole) if value in whole else value
        for value in values
    ]
