"""What a pass is: its options, its contract, and the log it writes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from ffc.compiler.proof.trial import Trial
    from ffc.compiler.rules import Rule

__all__ = ["Budget", "Contract", "Equal", "EqualToMasked", "Log", "Miss", "Pass", "option"]


@dataclass(frozen=True)
class Equal:
    """Outputs stay equal; `tolerance` is the largest difference relative to the scale of the output."""

    tolerance: float = 1e-4

    def __str__(self) -> str:
        return f"equal to {self.tolerance:g}"


@dataclass(frozen=True)
class EqualToMasked(Equal):
    """Outputs equal those of the model before with the parts that the pass drops set to zero (`Pass.reference`)."""

    def __str__(self) -> str:
        return f"equal to the masked model to {self.tolerance:g}"


@dataclass(frozen=True)
class Budget:
    """Outputs may move, within a budget.

    Attributes:
        cosine: Least mean cosine between output vectors before and after.
        agreement: Least share of rows whose largest output stays the largest; checked on two-dimensional outputs.
        against: What outputs are held against, where that is not the model before the pass.
    """

    cosine: float
    agreement: float = 0.0
    against: str = ""

    def __str__(self) -> str:
        agreement = f", agreement ≥ {self.agreement:g}" if self.agreement else ""
        return f"cosine ≥ {self.cosine:g}{agreement}{f' against {self.against}' if self.against else ''}"


Contract = Equal | EqualToMasked | Budget


def option(text: str, *, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field of a pass as an option.

    Args:
        text: What it does, for help.
        default: Its value when not given; without one the option is required.
    """
    return field(default=default, metadata={"help": text}, kw_only=True)


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
        trial: Measures what the pass might do before it decides, on the inputs that its contract will be judged on and
            on the user's rows; None where a pass runs outside a compile.
    """

    done: dict[str, int] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)
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


@dataclass(frozen=True)
class Pass(ABC):
    """One named step of a compile. Subclasses are frozen dataclasses whose fields, made by `option`, are their options.

    Attributes:
        name: How pipelines call it, in kebab-case.
        contract: What it promises about the outputs; a pass whose budget is an option computes it in a property.
        needs: Passes that must have run before; the run loop inserts those that have not.
        before_int8: Whether it must run before numbers are rounded, by `int8` or `fp16`, and refuses after that.
        rules: The rules it applies, for `ffc passes` and for the test that proves every rule.
    """

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ()
    before_int8: ClassVar[bool] = False
    rules: ClassVar[Sequence[Rule]] = ()

    expect: int | None = option("number of changes this pass must make; any other number is an error", default=None)

    @property
    def contract(self) -> Contract:
        """What the pass promises about the outputs; subclasses may state it as a plain class attribute."""
        return Equal()

    @abstractmethod
    def run(self, model: ir.Model, log: Log) -> None:
        """Change `model` in place and say in `log` what was done and what was left alone.

        Args:
            model: A clone that is this pass's own, at opset 23.
            log: Counts, remarks and misses; a pass that counts nothing is taken to have changed nothing.

        Raises:
            CannotApplyError: If the pass cannot be applied as asked; the model is then thrown away.
        """

    def reference(self, model: ir.Model) -> ir.Model:
        """Return what the result is held against, made from a clone of the model before: by default that clone."""
        return model

    def expected_rows(self, model: ir.Model) -> Mapping[str, np.ndarray] | None:
        """Return inputs with the outputs expected on them, to hold the result against instead of `reference`.

        Args:
            model: The model before.

        Returns:
            An array for every input and for one output at least, by name, rows first; None for no such rows.

        Raises:
            InputError: If they cannot be read, or name none of the outputs.
        """
        return None
