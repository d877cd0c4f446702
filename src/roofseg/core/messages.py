"""Names and notes in messages for the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Join names with commas; those after the first ``most`` are only counted."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def gathered(notes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """One line for each distinct note, with the names that it is about.

    ``notes`` are pairs of a name and a note on it; an empty note is left out.
    """
    names: dict[str, list[str]] = {}
    for name, note in notes:
        if note:
            names.setdefault(note, []).append(name)
    for note, its in names.items():
        yield f"{note}: {shortened(its)}"
