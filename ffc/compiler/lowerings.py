"""Ways to write a function of the dialect in a runtime's operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ffc.graph.trace import Program

__all__ = ["Lowering", "choose"]


@dataclass(frozen=True)
class Lowering:
    """One way to write a function.

    Attributes:
        function: The function of the dialect.
        name: What reports and targets call this way.
        target: The target it is for.
        program: It, with the tensors and attributes of the function.
    """

    function: str
    name: str
    target: str
    program: Program


def choose(table: Sequence[Lowering], function: str, target: str) -> Lowering | None:
    """Return the first lowering of `function` for `target`, or None if its body must do.

    Choosing by measured cost will take the place of the order of the table.
    """
    return next((entry for entry in table if (entry.function, entry.target) == (function, target)), None)
