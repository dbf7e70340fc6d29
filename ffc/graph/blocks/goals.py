"""Following what is computed to the only place where it is multiplied next, which says what a product is for.

What lies between does not matter: positions that turn, norms of each head, keys that are repeated, casts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from ffc.graph.blocks.products import Products, Reader
from ffc.graph.blocks.structure import Product

__all__ = ["Goals"]


@dataclass(frozen=True, eq=False)
class Goals:
    """What is computed for one place alone in one graph.

    Attributes:
        products: The graph's products.
        is_core: Whether attention may be found around a node.
    """

    products: Products
    is_core: Callable[[ir.Node], bool]

    def serving(self, reader: Reader) -> Product | None:
        """Return the only product of which all that is computed goes there, before it is multiplied by anything."""
        found = self._by_reader.get(reader, [])
        return found[0] if len(found) == 1 else None

    def served(self, value: ir.Value) -> Product | None:
        """Return the product into which all that is computed from `value` goes, before it is multiplied by anything."""
        goal = self._of(value)
        return None if goal is None else self.products.by_node.get(goal[0])

    @cached_property
    def _by_reader(self) -> dict[Reader, list[Product]]:
        found: dict[Reader, list[Product]] = {}
        for product in self.products.by_output.values():
            goal = self._of(product.out)
            if goal is not None:
                found.setdefault(goal, []).append(product)
        return found

    def _of(self, start: ir.Value) -> Reader | None:
        """Return the only place where a product or attention reads what comes of `start`; None where there is none."""
        origin, goals, seen = start.producer(), set[Reader](), {start}
        values = [start]
        for value in values:  # grows while it is walked, the nearest first
            for node, index in value.uses():
                if origin is None or node.graph is not origin.graph or value.is_graph_output():
                    return None
                if self.is_core(node) or node in self.products.by_node or node.op_type == "MatMul":
                    goals.add((node, index))
                elif node.op_type not in ("Shape", "Size"):
                    values += [out for out in node.outputs if out not in seen]
                    seen.update(node.outputs)
            if value.is_graph_output() or len(goals) > 1:
                return None
        return next(iter(goals), None)
