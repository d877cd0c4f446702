"""Show the progress of long work on stderr: a bar in a terminal, elsewhere now and then a line.

Functions of the library take a `Progress`, whose default, `silent`, shows nothing; stages and
commands give them `track`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

from roofseg.core.terminal import terminal

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

LINE_S = 30.0
"""Least time between two lines; work that takes less prints none."""
LINES = 10
"""Without a terminal, print at most about this many lines."""
DESCRIPTION_WIDTH = 26
BAR_WIDTH = 20
"""Columns: with these, all columns of a bar together fit 80."""


class Progress(Protocol):
    """Gives ``items`` one by one, and may show how many of them are done."""

    def __call__(self, items: Sequence[Item], description: str, /) -> Iterable[Item]: ...


def silent(items: Sequence[Item], description: str, /) -> Iterable[Item]:
    """The `Progress` that shows nothing."""
    return items


def track(items: Sequence[Item], description: str, /) -> Iterator[Item]:
    """The `Progress` that shows a `bar`."""
    with bar(description, len(items)) as shown:
        for item in items:
            yield item
            shown.advance()


class Bar:
    """The progress of one piece of work; `bar` shows it.

    Attributes:
        description: a few words that say what is being done.
        total: the number of items, windows, ...
        done: the number of those that are done.
    """

    def __init__(self, description: str, total: int, done: int) -> None:
        self.description, self.total, self.done = description, total, done
        self._before, self._start = done, monotonic()

    def advance(self, count: int = 1) -> None:
        """Count ``count`` more as done."""
        self.update(done=self.done + count)

    def update(self, *, description: str | None = None, done: int | None = None) -> None:
        """Set the description or the number done."""
        self.description = self.description if description is None else description
        self.done = self.done if done is None else done

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return monotonic() - self._start

    @property
    def times(self) -> str:
        """The time since the start, and an estimate of the time left."""
        seconds, fresh = self.seconds, self.done - self._before
        if self.done >= self.total or fresh <= 0:
            return _clock(seconds)
        return f"{_clock(seconds)}, {_clock(seconds / fresh * (self.total - self.done))} left"


class _PrintedBar(Bar):
    """Prints a line when another share of the work is done, but not for short work."""

    _last, _next = 0.0, 0.0  # time of the last line; number done that the next line waits for
    _printed = -1  # number done in the last line

    def update(self, *, description: str | None = None, done: int | None = None) -> None:
        super().update(description=description, done=done)
        is_due = self.seconds - self._last >= LINE_S and self.done >= self._next
        is_final = self._last and self._printed < self.done == self.total
        if is_due or is_final:
            line = f"{self.description}: {self.done} of {self.total}, {self.times}"
            print(line, file=sys.stderr, flush=True)
            self._last, self._next = self.seconds, self.done + self.total / LINES
            self._printed = self.done


class _DrawnBar(Bar):
    """Draws a bar in a terminal."""

    def __init__(self, description: str, total: int, done: int, console: Console) -> None:
        super().__init__(description, total, done)
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Drawing
        from rich.table import Column

        narrow = Column(max_width=DESCRIPTION_WIDTH, no_wrap=True, overflow="ellipsis")
        self._drawing = Drawing(
            TextColumn("{task.description}", markup=False, table_column=narrow),
            BarColumn(BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.fields[bar].times}"),
            console=console,
            transient=True,
            # Lines printed meanwhile appear above the bar, unless they go to a file or pipe.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._drawing.add_task(description, total=total, completed=done, bar=self)

    def open(self) -> None:
        self._drawing.start()

    def update(self, *, description: str | None = None, done: int | None = None) -> None:
        super().update(description=description, done=done)
        self._drawing.update(self._task, description=self.description, completed=self.done)

    def close(self) -> None:
        self._drawing.stop()


_drawn: set[_DrawnBar] = set()


@contextmanager
def bar(description: str, total: int, *, done: int = 0, lines: bool = True) -> Iterator[Bar]:
    """Show a `Bar` while the block runs; it disappears at the end.

    Args:
        description: see `Bar`.
        total: see `Bar`.
        done: the number that an earlier run did; the estimate of time leaves it out.
        lines: whether to print lines without a terminal; not needed if the block prints its own.
    """
    if not (console := terminal()):
        yield _PrintedBar(description, total, done) if lines else Bar(description, total, done)
        return
    shown = _DrawnBar(description, total, done, console)
    _drawn.add(shown)  # first: a signal while the bar opens must not leave the cursor hidden
    try:
        shown.open()
        yield shown
    finally:
        shown.close()
        _drawn.discard(shown)


@contextmanager
def bars_closed() -> Iterator[None]:
    """After the block, remove all bars and show the cursor again.

    Entry points do this before they report an error: the bar of a generator such as `track`
    outlives the exception that ended the loop over it.
    """
    try:
        yield
    finally:
        for shown in [*_drawn]:  # a generator that is collected meanwhile removes its own
            shown.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
