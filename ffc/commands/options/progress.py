"""How a run of steps is shown on stderr: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ffc import streams

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from ffc.study.steps import Progress

__all__ = ["Bars", "Lines", "progress"]

_SECONDS = 10.0
"""Between lines that count."""


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Return what shows a run, until the context ends."""
    if not streams.is_terminal(sys.stderr):
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[line]}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield Bars(bars)


class Lines:
    """A line for what a step tells and when it ends; of lines that count, one in a while."""

    def __init__(self) -> None:
        self._prefix = ""
        self._counted = 0.0

    def begin(self, number: int, of: int, title: str) -> None:
        """Remember the step; one that is kept gets a single line."""
        self._prefix = f"[{number}/{of}] {title}"
        self._counted = time.monotonic()

    def tell(self, line: str, done: int = 0, total: int = 0, /) -> None:
        """Print a line, unless it counts and one that did was printed a moment ago."""
        if total:
            if time.monotonic() - self._counted < _SECONDS:
                return
            self._counted = time.monotonic()
        click.echo(f"{self._prefix}: {line}", err=True)

    def end(self, seconds: float, *, kept: bool) -> None:
        """Print that the step is done."""
        click.echo(f"{self._prefix}: {'kept' if kept else f'done in {seconds:.1f} s'}", err=True)


class Bars:
    """A bar for the steps and one for the step at hand, which moves with what is counted."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._all: TaskID | None = None
        self._one: TaskID | None = None
        self._title = ""

    def begin(self, number: int, of: int, title: str) -> None:
        """Show the step."""
        self._title = title
        if self._all is None:
            self._all = self._bars.add_task("", total=of, line="")
        self._bars.update(self._all, description=f"step {number} of {of}")
        self._one = self._bars.add_task(title, total=None, line="")

    def tell(self, line: str, done: int = 0, total: int = 0, /) -> None:
        """Show a line beside the bar of the step, and move the bar."""
        if self._one is None:
            return
        self._bars.update(self._one, line=line)
        if total:
            self._bars.update(self._one, completed=done, total=total)

    def end(self, seconds: float, *, kept: bool) -> None:
        """Put a line in place of the bar of the step."""
        if self._one is not None and self._all is not None:
            self._bars.remove_task(self._one)
            self._bars.advance(self._all)
        self._bars.console.print(
            f"{self._title}: {'kept' if kept else f'{seconds:.1f} s'}", highlight=False, markup=False
        )
