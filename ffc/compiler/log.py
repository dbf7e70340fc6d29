"""The log of a pass: what it did, and what it left alone and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ffc.compiler.proof.trial import Trial

__all__ = ["Application", "Log", "Miss"]


@dataclass(frozen=True)
class Application:
    """A change of a pass that stands alone, so that the pass can do without it.

    Attributes:
        what: The rule, the lowering, or what the pass calls it.
        where: The value that it changes.
    """

    what: str
    where: str


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
        asked: What `takes` was asked for, in order.
        leaves: Which of it to leave, since with it the pass was found to fail.
        trial: Measures what the pass might do before it decides, on the inputs that its contract will be judged on and
            on the user's rows; None where a pass runs outside a compile.
    """

    done: dict[str, int] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)
    decided: dict[str, object] = field(default_factory=dict)
    asked: dict[Application, None] = field(default_factory=dict)
    leaves: Callable[[Application], bool] = lambda application: False
    trial: Trial | None = None

    def takes(self, what: str, where: str | None) -> bool:
        """Whether to do `what` at `where`, the name of a value; to be asked before each change that stands alone.

        Where the pass fails its proof, the changes to blame are found among these, and it runs again without them.
        """
        application = Application(what, where or "")
        self.asked[application] = None
        return not self.leaves(application)

    def again(self) -> Log:
        """Return an empty log of a pass that shall leave the same."""
        return Log(leaves=self.leaves)

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
