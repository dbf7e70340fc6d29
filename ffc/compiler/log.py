"""The log of a pass: what it did, and what it left alone and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from ffc.compiler.proof.trial import Trial

__all__ = ["Log", "Miss"]


@dataclass(frozen=True)
class Miss:
    """Something a pass looked at and left alone.

    Attributes:
        where: The node or block.
        why: The condition that failed.
        depth: How far the match got; the deepest miss is the nearest.
    """

    where: str
    why: str
    depth: int = 0


@dataclass
class Log:
    """What a pass did and what it left alone, written by the pass while it runs.

    Attributes:
        done: Number of changes by kind.
        taken: What was changed, by name.
        notes: Remarks for the report.
        misses: What was left alone, and why.
        decided: What options that leave a choice open came to, by option.
        trial: Measures what the pass might do before it decides, on the inputs that its contract will be judged on and
            on the user's rows; None where a pass runs outside a compile.
    """

    done: dict[str, int] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)
    decided: dict[str, object] = field(default_factory=dict)
    trial: Trial | None = None

    def did(self, what: str, count: int = 1, where: str = "") -> None:
        """Count `count` more changes of the kind `what`, at `where` if that is worth telling."""
        if count > 0:
            self.done[what] = self.done.get(what, 0) + count
        if where:
            self.taken.append(f"{what} {where}")

    def note(self, text: str) -> None:
        """Add a remark for the report."""
        self.notes.append(text)

    def decide(self, option: str, value: object) -> None:
        """Record what an option came to that left a choice to the machine or to rows of data.

        The pass with `value` for `option` must do the same on any machine: a lock keeps it, for checks elsewhere.
        """
        self.decided[option] = value

    def missed(self, where: str, why: str, depth: int = 0) -> None:
        """Record that `where` was left alone because of `why`."""
        self.misses.append(Miss(where, why, depth))

    @property
    def count(self) -> int:
        """The number of changes."""
        return sum(self.done.values())

    def nearest(self) -> Miss | None:
        """Return the miss that got furthest."""
        return max(self.misses, key=lambda miss: miss.depth, default=None)
