"""Rewrites declared as pairs of programs, and the matcher that finds where one applies.

Both sides of a rule can be run, so a rule is proved alone, on samples that it carries, before any model meets it.
The matcher tries operands of commutative operators both ways, compares constants by value whatever their rank, knows
the defaults of attributes, and remembers how far each attempt got, so that a pass that finds nothing can name the
nearest miss.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ffc.compiler.log import Log
from ffc.errors import CannotApplyError
from ffc.graph.dialect.edit import Editor, constant, is_output
from ffc.graph.dialect.trace import OPSET, Fragment, Program, trace

__all__ = ["Condition", "Match", "Rule", "Sample", "apply", "find_match", "is_constant", "is_scalar", "rank"]

_MAX_SWEEPS = 64
"""An encoder takes a handful; more means rules that undo each other."""

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


Condition = Callable[[Match], str | None]
"""Returns None where it holds, else the reason in words."""


@dataclass(frozen=True)
class Sample:
    """Inputs for the left side of a rule.

    Attributes:
        inputs: Arrays that are graph inputs, by parameter name.
        constants: Arrays that are initializers.
        attributes: Attributes of the left side.
        matches: False for a near-miss, which must be left alone.
    """

    inputs: Mapping[str, np.ndarray]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    matches: bool = True


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Attributes:
        name: What reports call it.
        match: The program to look for; its result must have one output.
        rewrite: The program to put in its place. It takes tensors of `match` by name, and those that `bind` computes.
        samples: Given a random generator, inputs that match and near-misses that must not.
        where: Conditions on a match.
        bind: Computes further tensors (arrays) and attributes of `rewrite` from a match.
        shared: Whether values inside the match may have other consumers; they are then computed twice.
    """

    name: str
    match: Program
    rewrite: Program
    samples: Callable[[np.random.Generator], Iterable[Sample]]
    where: Sequence[Condition] = ()
    bind: Callable[[Match], Mapping[str, Any]] | None = None
    shared: bool = False


def is_constant(*names: str) -> Condition:
    """Condition: each of these tensors is an initializer."""

    def holds(match: Match) -> str | None:
        free = next((name for name in names if constant(match.values[name]) is None), None)
        return None if free is None else f"{free} ({match.values[free].name}) is not constant"

    return holds


def is_scalar(name: str) -> Condition:
    """Condition: this tensor is a constant of one element."""

    def holds(match: Match) -> str | None:
        array = constant(match.values[name])
        return None if array is not None and array.size == 1 else f"{name} is not one constant number"

    return holds


def rank(name: str, expected: int) -> Condition:
    """Condition: this constant has so many axes."""

    def holds(match: Match) -> str | None:
        found = match.array(name).ndim
        return None if found == expected else f"{name} has {found} axes, not {expected}"

    return holds


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


def find_match(rule: Rule, root: ir.Node, editor: Editor) -> tuple[Match | None, int, str]:
    """Try `rule` at `root`.

    Returns:
        The match or None, how many nodes the best attempt matched, and why it went no further.
    """
    pattern = trace(rule.match)
    want = pattern.outputs[0].producer()
    assert want is not None
    attempt = _Attempt(pattern)
    for match in attempt.node(want, root, Match(root, editor)):
        why = _refused(rule, match)
        if why is None:
            return match, len(match.nodes), ""
        attempt.fail(match, why)
    return None, attempt.depth, attempt.why


def _refused(rule: Rule, match: Match) -> str | None:
    first, *others = match.root.outputs
    if any(value.uses() or is_output(value) for value in others):
        return f"another output of {match.root.op_type} {match.root.name} is read"
    if not (first.uses() or is_output(first)):
        return "nothing reads it"
    inside = set(match.nodes.values())
    if not rule.shared:
        for value in (value for node in inside if node is not match.root for value in node.outputs):
            if is_output(value):
                return f"{value.name} is also an output of the model"
            if any(use.node not in inside for use in value.uses()):
                return f"{value.name} is also read elsewhere"
    return _added_axes(match) or next((why for check in rule.where if (why := check(match)) is not None), None)


def _added_axes(match: Match) -> str | None:
    """Say which literal has more axes than what is computed: written as a plain number, its axes would be lost."""
    bound = set(match.values.values())
    inputs = [value for node in match.nodes.values() for value in node.inputs if value is not None]
    arrays = [(value.name, constant(value)) for value in inputs if value not in bound]
    literals = [(name, array.ndim) for name, array in arrays if array is not None and array.size == 1 < array.ndim]
    if not literals:  # as nearly always: shapes need not be inferred
        return None
    shapes = [match.editor.shapes.of(value) for value in bound if constant(value) is None]
    least = min((0 if shape is None else len(shape) for shape in shapes), default=0)
    wide = ((name, axes) for name, axes in literals if axes > least)
    return next((f"the constant {name} has {axes} axes, more than what it is applied to" for name, axes in wide), None)


def apply(rules: Sequence[Rule], model: ir.Model, log: Log, editor: Editor | None = None) -> int:
    """Apply `rules` to the main graph until none matches any more, the first that matches a node first.

    Args:
        rules: The table.
        model: Changed in place.
        log: Counts each rule under its name; near misses go there too.
        editor: An editor of `model` that knows its shapes already.

    Returns:
        The number of rewrites.

    Raises:
        CannotApplyError: If they never come to an end.
    """
    by_root: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        root = trace(rule.match).outputs[0].producer()
        assert root is not None
        by_root.setdefault((root.domain, root.op_type), []).append(rule)
    total, editor = 0, editor or Editor(model)
    for _ in range(_MAX_SWEEPS):
        count = sum(_apply_at(node, by_root, editor, log) for node in list(model.graph))
        total += count
        if not count:
            return total
    names = ", ".join(sorted({rule.name for rule in rules} & log.done.keys()))
    raise CannotApplyError(f"rules still match after {_MAX_SWEEPS} sweeps ({names}): what they write, they match again")


def _apply_at(node: ir.Node, by_root: Mapping[tuple[str, str], list[Rule]], editor: Editor, log: Log) -> bool:
    if node.graph is None:  # removed by an earlier rewrite of this sweep
        return False
    for rule in by_root.get((node.domain, node.op_type), ()):
        match, depth, why = find_match(rule, node, editor)
        if match is None:
            if depth > 1:
                log.missed(f"{node.op_type} {node.name}", f"rule {rule.name}: {why}", depth)
            continue
        extra = dict(rule.bind(match)) if rule.bind else {}
        fragment = trace(rule.rewrite)
        inputs = {name: extra.get(name, match.values.get(name)) for name in fragment.inputs}
        found = {**match.attributes, **extra}
        attributes = {name: found[name] for name in fragment.attributes if name in found}
        editor.splice(rule.rewrite, inputs, attributes, replaces=node.outputs[0], rule=rule.name)
        log.did(rule.name)
        return True
    return False
