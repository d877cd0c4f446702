from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from roofseg.sliding_window.prefetch import prefetch


def test_items_come_in_the_same_order() -> None:
    assert list(prefetch(iter(range(100)), depth=3)) == list(range(100))
    assert list(prefetch(iter([]))) == []


def test_it_runs_ahead_up_to_the_depth() -> None:
    made, third = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    with closing(prefetch(items(), depth=2)) as numbers:
        assert next(numbers) == 0
        assert third.wait()  # while 0 is in use, 1 and 2 are made
        assert made == [0, 1, 2]


def test_an_exception_while_the_thread_starts_leaves_the_items_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal can raise one there."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise SystemExit

    def slow() -> Iterator[int]:
        threading.Event().wait(0.2)
        yield 1

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    items = slow()
    with pytest.raises(SystemExit):
        next(prefetch(items))
    items.close()  # ValueError if the thread were using it


def test_an_error_of_the_source_is_raised_at_the_same_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    numbers = prefetch(items())
    assert next(numbers) == 1
    with pytest.raises(KeyError, match="broken"):
        next(numbers)


@pytest.mark.parametrize("how", ["closed", "raised"])
def test_closing_early_closes_the_source_and_ends_the_thread(how: str) -> None:
    closed = []

    def items(name: str, source: Iterator[int]) -> Iterator[int]:
        try:
            yield from source
        finally:
            closed.append((name, threading.current_thread() is threading.main_thread()))

    before = set(threading.enumerate())
    inner = prefetch(items("inner", iter(range(100))))
    with closing(prefetch(items("outer", inner))) as numbers:
        next(numbers)
        if how == "raised":
            with pytest.raises(ZeroDivisionError), closing(numbers):
                raise ZeroDivisionError
    assert sorted(closed) == [("inner", False), ("outer", False)]
    assert set(threading.enumerate()) <= before
