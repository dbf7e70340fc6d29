"""The matcher: where in a graph the nodes of a program stand, in every form that means the same.

It tries operands of commutative operators both ways, compares constants by value whatever their rank, knows the
defaults of attributes, and remembers how far each attempt got, so that a pass that finds nothing can name the nearest
miss.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_ir as ir

from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.trace import OPSET, Fragment

__all__ = ["Match", "search"]

COMMUTATIVE = {"Add", "And", "Equal", "Max", "Min", "Mul", "Or"}

# Defaults of the one operator outside the standard domain that rules match and that has more than one attribute.
_FUSED_MATMUL = {
    "alpha": ir.AttrFloat32("alpha", 1.0),
    **{name: ir.AttrInt64(name, 0) for name in ("transA", "transB", "transBatchA", "transBatchB")},
}


@dataclass(frozen=True)
class Match:
    """Where the left side of a rule was found.

    Attributes:
        root: The node that computes the value to replace.
        values: The value found for each tensor of the `match` program.
        attributes: The attribute found for each attribute of the program.
        nodes: The graph's node for each node of the program.
        editor: The editor of the graph, which also knows shapes.
    """

    root: ir.Node
    editor: Editor
    values: Mapping[str, ir.Value] = field(default_factory=dict)
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    nodes: Mapping[ir.Node, ir.Node] = field(default_factory=dict)

    def array(self, name: str) -> np.ndarray:
        """Return the contents of a matched tensor that a condition has found constant."""
        array = constant(self.values[name])
        assert array is not None
        return array

    def number(self, name: str) -> float:
        """Return the one number of a matched tensor that a condition has found constant."""
        return float(self.array(name).reshape(-1)[0])


def search(
    pattern: Fragment, root: ir.Node, editor: Editor, refused: Callable[[Match], str | None]
) -> tuple[Match | None, int, str]:
    """Try `pattern`, a program of one output, at `root`; `refused` says what stands against a match that fits, or None.

    Returns:
        The match or None, how many nodes the best attempt matched, and why it went no further.
    """
    want = pattern.outputs[0].producer()
    assert want is not None
    attempt = _Attempt(pattern)
    for match in attempt.node(want, root, Match(root, editor)):
        why = refused(match)
        if why is None:
            return match, len(match.nodes), ""
        attempt.fail(match, why)
    return None, attempt.depth, attempt.why


class _Attempt:
    """One try of a pattern at a root; remembers the furthest failure."""

    def __init__(self, pattern: Fragment) -> None:
        self.pattern = pattern
        self.inputs = {value: name for name, value in pattern.inputs.items()}
        self.depth = 0
        self.why = ""

    def fail(self, state: Match, why: str, *, inside: int = 0) -> None:
        """Note why a try ends; `inside` are nodes that fit but for it, beyond those of `state`."""
        depth = len(state.nodes) + inside
        if depth > self.depth or not self.why:
            self.depth, self.why = depth, why

    def value(self, want: ir.Value | None, have: ir.Value | None, state: Match) -> Iterator[Match]:
        if want is None or have is None:
            if want is have:
                yield state
            elif have is not None:
                self.fail(state, f"{have.name} is given, where the rule has no input")
            else:
                self.fail(state, f"{self.inputs.get(want, 'an input') if want else 'an input'} is not given")
        elif want in self.inputs:
            yield from self._variable(self.inputs[want], have, state)
        elif want.const_value is not None:
            yield from self._literal(want.const_value.numpy(), have, state)
        else:
            found, wanted = have.producer(), want.producer()
            assert wanted is not None
            if found is None:
                self.fail(state, f"{have.name} is not computed by {wanted.op_type}")
            elif found.outputs.index(have) != wanted.outputs.index(want):
                self.fail(state, f"{have.name} is another output of {found.op_type}")
            else:
                yield from self.node(wanted, found, state)

    def _variable(self, name: str, have: ir.Value, state: Match) -> Iterator[Match]:
        if state.values.get(name, have) is have:
            yield replace(state, values={**state.values, name: have})
        else:
            self.fail(state, f"{name} would be both {state.values[name].name} and {have.name}")

    def _literal(self, want: np.ndarray, have: ir.Value, state: Match) -> Iterator[Match]:
        array = constant(have)
        if array is None:
            self.fail(state, f"{have.name} is not the constant {want.tolist()}")
        elif want.size != array.size or not np.allclose(array.reshape(-1), want.reshape(-1), rtol=1e-6, atol=0):
            self.fail(state, f"the constant {have.name} is not {want.tolist()}")
        else:
            yield state

    def node(self, want: ir.Node, have: ir.Node, state: Match) -> Iterator[Match]:
        if want in state.nodes:
            if state.nodes[want] is have:
                yield state
            return
        if (want.domain, want.op_type) != (have.domain, have.op_type):
            self.fail(state, f"{have.op_type} {have.name} is not {want.op_type}")
            return
        bound = self._attributes(want, have, state)
        if bound is None:
            return
        inside = Match(state.root, state.editor, state.values, bound, {**state.nodes, want: have})
        wanted = _padded(want.inputs, have.inputs)
        found = _padded(have.inputs, want.inputs)
        yield from self._operands(wanted, found, inside)
        if want.op_type in COMMUTATIVE and len(wanted) == 2 and not want.domain:
            yield from self._operands(wanted, found[::-1], inside)

    def _operands(
        self, want: Sequence[ir.Value | None], have: Sequence[ir.Value | None], state: Match
    ) -> Iterator[Match]:
        if not want:
            yield state
            return
        for inside in self.value(want[0], have[0], state):
            yield from self._operands(want[1:], have[1:], inside)

    def _attributes(self, want: ir.Node, have: ir.Node, state: Match) -> Mapping[str, ir.Attr] | None:
        """Return the attributes bound so far and by this node, None where they do not fit."""
        bound = dict(state.attributes)
        for name in sorted({*want.attributes, *have.attributes}):
            pattern = want.attributes.get(name)
            found = have.attributes.get(name) or _default(have, name)
            reference = None if pattern is None else pattern.ref_attr_name
            if reference is not None:
                if found is None or (reference in bound and bound[reference].value != found.value):
                    self.fail(state, f"{have.op_type} {have.name} has no fitting {name}", inside=1)
                    return None
                bound[reference] = ir.Attr(reference, found.type, found.value)
                continue
            pattern = pattern or _default(have, name)
            if pattern is None or found is None or not _same(pattern, found):
                shown = "unset" if found is None else found.value
                self.fail(state, f"{have.op_type} {have.name} has {name} {shown}", inside=1)
                return None
        return bound


def _padded(values: Sequence[ir.Value | None], other: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    return [*values, *[None] * (len(other) - len(values))]


def _same(one: ir.Attr, other: ir.Attr) -> bool:
    if isinstance(one.value, float) and isinstance(other.value, float):
        return bool(np.isclose(one.value, other.value, rtol=1e-6, atol=0))
    return bool(one.value == other.value)


@functools.cache
def _defaults(op_type: str) -> dict[str, ir.Attr]:
    if not onnx.defs.has(op_type):
        return {}
    attributes = onnx.defs.get_schema(op_type, OPSET).attributes
    return {
        name: ir.serde.deserialize_attribute(attr.default_value)
        for name, attr in attributes.items()
        if attr.default_value.type
    }


def _default(node: ir.Node, name: str) -> ir.Attr | None:
    if node.domain == "com.microsoft" and node.op_type == "FusedMatMul":
        return _FUSED_MATMUL.get(name)
    return None if node.domain else _defaults(node.op_type).get(name)
