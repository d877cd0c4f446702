"""The rules by which the names of tensors in a file become those of an encoder.

A rule is the beginning of a name, or a regular expression between two slashes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any


def is_regex(rule: str) -> bool:
    """Whether a rule is a regular expression."""
    return len(rule) > 1 and rule[0] == rule[-1] == "/"


def pattern(rule: str) -> re.Pattern[str]:
    """The regular expression of a rule."""
    return re.compile(rule[1:-1] if is_regex(rule) else f"^{re.escape(rule)}")


def replacement(rule: str, new: str) -> str:
    r"""The text that replaces what a rule finds; only a regular expression has groups (``\1``)."""
    return new if is_regex(rule) else new.replace("\\", r"\\")


def check_form(rules: Any) -> None:
    """Raise ValueError unless ``rules`` are mappings of one rule to its replacement, in a list."""
    if isinstance(rules, Mapping):
        items = [{str(old): "" if new is None else new} for old, new in rules.items()]
        raise ValueError(
            "expected a list, since DVC does not see the order of a mapping. Write "
            f"`rename: {json.dumps(items, ensure_ascii=False, default=str)}`"
        )
    for item in rules if isinstance(rules, list) else []:
        if not isinstance(item, Mapping) or len(item) != 1:
            raise ValueError(
                f"expected one rule in each item, such as `- backbone.: model.`, found {item!r}"
            )
        for old, new in item.items():
            if not isinstance(new, str):
                found = "nothing" if new is None else repr(new)
                raise ValueError(
                    f'{old} is replaced by {found}, expected text in quotes; `{old}: ""` removes it'
                )


def check_patterns(rules: Sequence[tuple[str, str]]) -> None:
    """Raise ValueError for a rule that is no regular expression, or whose replacement is none."""
    for rule, new in rules:
        try:
            # A replacement may name a group that is not there: try it where nothing is found.
            re.compile(f"{pattern(rule).pattern}\n|").sub(replacement(rule, new), "")
        except (re.error, IndexError) as error:
            raise ValueError(f"{rule} is no regular expression ({error})") from None
