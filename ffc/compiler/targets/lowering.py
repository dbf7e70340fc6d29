"""Ways to write a function of the dialect in a runtime's operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from ffc.graph.dialect import ops
from ffc.graph.dialect.trace import Program
from ffc.graph.shapes.inference import Shapes

__all__ = ["Lowering", "choose"]


@dataclass(frozen=True)
class Lowering:
    """One way to write a function.

    Attributes:
        function: The function of the dialect.
        name: What reports and targets call this way.
        target: The target it is for.
        program: It, with the tensors and attributes of the function.
        given: Values that attributes of the call must have.
        ranks: Numbers of axes that the call's first tensor may have; empty for any.
    """

    function: str
    name: str
    target: str
    program: Program
    given: Mapping[str, Any] = field(default_factory=dict)
    ranks: Sequence[int] = ()

    def fits(self, call: ir.Node, shapes: Shapes) -> bool:
        """Whether this way is one for `call`."""
        if any(ops.attribute(call, name) != value for name, value in self.given.items()):
            return False
        (first, *_) = call.inputs
        shape = None if first is None else shapes.of(first)
        return not self.ranks or (shape is not None and len(shape) in self.ranks)


def choose(table: Sequence[Lowering], call: ir.Node, target: str, shapes: Shapes) -> Lowering | None:
    """Return the first lowering for `target` that fits `call`, or None if the body of its function must do.

    Choosing by measured cost will take the place of the order of the table.

    Args:
        table: All lowerings.
        call: A call of a function of the dialect.
        target: Name of the target.
        shapes: Of the graph that holds the call.
    """
    entries = (entry for entry in table if (entry.function, entry.target) == (call.op_type, target))
    return next((entry for entry in entries if entry.fits(call, shapes)), None)
