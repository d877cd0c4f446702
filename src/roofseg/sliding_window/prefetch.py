"""Run an iterator in its own thread, ahead of its reader, so that their work overlaps."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Iterate over ``items`` in another thread, up to ``depth`` items ahead.

    An error that ``items`` raises is raised here at the same item. If this generator is closed
    early (or ended by an exception), it closes ``items`` in that thread and waits for it.
    """
    with ThreadPoolExecutor(1) as thread:
        # Start the thread before it gets items: if a signal raises an exception during the start,
        # the executor does not wait for the thread, which would still be using ``items``.
        thread.submit(int).result()
        waiting = deque(thread.submit(next, items, _END) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, items, _END))
                yield item  # type: ignore[misc]  # not _END
        finally:
            for future in waiting:
                future.cancel()
            thread.submit(getattr(items, "close", lambda: None))
