"""Following what is computed to the only place where it is multiplied next, which says what a product is for.

What lies between does not matter: positions that turn, norms of each head, keys that are repeated, casts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from ffc.graph.blocks.products import Products, Reader, multiplies
from ffc.graph.blocks.structure import Product

__all__ = ["Goals"]


@dataclass(frozen=True, eq=False)
class Goals:
    """What is computed for one place alone in one graph.

    Attributes:
        products: The graph's products.
    """

    products: Products

    def serving(self, reader: Reader) -> Product | None:
        """Return the only product of which all that comes goes to `reader`, before anything else multiplies it."""
        found = self._by_goal.get(reader, [])
        return found[0] if len(found) == 1 else None

    def served(self, value: ir.Value) -> Product | None:
        """Return the product that all that comes of `value` goes to, before anything else multiplies it."""
        goal = self._of.get(value)
        return None if goal is None else self.products.by_node.get(goal[0])

    @cached_property
    def _by_goal(self) -> dict[Reader, list[Product]]:
        found: dict[Reader, list[Product]] = {}
        for out, product in self.products.by_output.items():
            if (goal := self._of.get(out)) is not None:
                found.setdefault(goal, []).append(product)
        return found

    @cached_property
    def _of(self) -> dict[ir.Value, Reader | None]:
        """For values all that comes of which goes to one place, where that is multiplied; None for an output."""
        every: dict[ir.Value, set[Reader | None]] = {}
        for node in reversed(self.products.graph):
            for value in node.outputs:
                goals: set[Reader | None] = {None} if value.is_graph_output() else set()
                for reader, index in value.uses():
                    if multiplies(reader):
                        goals.add((reader, index))
                    elif reader.op_type not in ("Shape", "Size"):
                        goals.update(*(every.get(out, {None}) for out in reader.outputs))  # within a branch: not known
                every[value] = set(itertools.islice(goals, 2))  # of several it does not matter which
        return {value: goals.pop() for value, goals in every.items() if len(goals) == 1}
