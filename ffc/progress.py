"""How long work tells how it goes."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Tell"]


class Tell(Protocol):
    """Told something new: in words, and where the work can be counted, as numbers too."""

    def __call__(self, line: str, done: int = 0, total: int = 0, /) -> None:
        """Take what is new.

        Args:
            line: The words, on one line without its end.
            done: How much is done.
            total: Of how much; 0 where nothing is counted.
        """
