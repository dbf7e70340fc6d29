"""What can change between two models: the kinds, and one change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["KINDS", "Change", "Kind"]

Kind = Literal[
    "interface", "structure", "attribute", "weight-type", "weight-value", "name", "cost", "numerics"
]  # fmt: skip

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What may change, from what callers notice first:

- interface: inputs, outputs, their types, opsets, what functions take and give
- structure: nodes inserted, removed, replaced, or reading another value
- attribute: a number or text that a node carries
- weight-type: type or shape of a tensor
- weight-value: its contents
- name: names of nodes, values and dimensions, where they are asked for
- cost: nodes, parameters, bytes, multiply-accumulates
- numerics: outputs on the same inputs
"""


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        kind: Its kind.
        what: What changed, without names: equal changes in several layers say the same.
        where: The node, weight or input concerned, by its name before, or after where it is new.
        before: Places of the nodes concerned in the graph before.
        after: Places of those in the graph after.
        by: The pass and rule that made the new nodes, where that is known.
        scope: The function or subgraph that it lies in, empty for the main graph.
        detail: More of it by name, for readers of JSON.
    """

    kind: Kind
    what: str
    where: str = ""
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    by: str = ""
    scope: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
