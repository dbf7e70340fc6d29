"""Symbolic shapes, element types and small integer contents of every value of a model, by one forward walk.

They are kept current while the graph changes: what a change concerns is inferred anew, as far as anything differs.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import onnx_ir as ir

import ffc.graph.shapes.elementwise
import ffc.graph.shapes.kernels
import ffc.graph.shapes.manipulation  # noqa: F401  (imported, as the two above, to fill the table of rules)
from ffc.graph.shapes.dim import Dim, Expr, symbol, symbols
from ffc.graph.shapes.rule import ODDITIES, RULES, Fact, Out, PartialShape, Shape, Site, fits, is_absurd, tensor_ints

__all__ = ["Shapes", "Visit", "infer"]

# Called for every node that is executed, in function bodies too: the node's site and its outputs' facts.
Visit: TypeAlias = Callable[[Site, Sequence[Fact]], None]

# A file of 2 kB can call functions 10^8 times: past these limits calls are not entered.
_MAX_BODY_NODES = 20_000
_MAX_CALL_DEPTH = 16
# As many nodes of bodies may be entered again for each node of the graph that is inferred anew.
_BODY_NODES_AGAIN = 64

_NOTHING = Out()


@dataclass
class _Scope:
    """The values of the main graph or of one function body while it is walked."""

    facts: dict[ir.Value, Fact] = field(default_factory=dict)
    attributes: Mapping[str, ir.Attr] | None = None
    path: str = ""
    depth: int = 0
    root: ir.Node | None = None


@dataclass
class _Walk:
    model: ir.Model
    visit: Visit | None
    inputs: dict[str, Expr] = field(default_factory=dict)
    body_nodes_left: int = _MAX_BODY_NODES
    # How many symbols were made, and what was concluded for calls where none was: those are named after their place.
    fresh: int = 0
    known: dict[Hashable, Sequence[Fact]] = field(default_factory=dict)


class Shapes:
    """What is known of the values of a model's main graph, as `infer` returns it.

    Whoever changes the graph says so by `update`, `changed` and `replaced`; then what is known is what `infer` would
    say, and shapes and types noted in the model are no others.
    """

    def __init__(self, walk: _Walk, scope: _Scope) -> None:
        self._walk, self._scope = walk, scope
        self._pushed = itertools.count()

    @property
    def facts(self) -> Mapping[ir.Value, Fact]:
        """What is known by value, of all that were met."""
        return self._scope.facts

    def of(self, value: ir.Value) -> Shape | None:
        """Return the dimensions of `value`, None if not even its rank is known."""
        return self.fact(value).shape

    def ints(self, value: ir.Value) -> tuple[Dim, ...] | None:
        """Return the contents of an integer or bool tensor of rank <= 1 and <= 64 elements, None if unknown."""
        return self.fact(value).ints

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return the element type of `value`, None if unknown."""
        return self.fact(value).dtype

    def fact(self, value: ir.Value) -> Fact:
        """Return all that is known of `value`."""
        return self.facts.get(value) or _unwalked(self._walk, self._scope, value)

    def concluded(self, node: ir.Node) -> PartialShape | None:
        """Return the dimensions of the first output of `node` as they follow from its inputs, annotations aside."""
        outs = _apply(_site(self._walk, self._scope, node))
        return outs[0].shape if outs else None

    def noted(self, value: ir.Value) -> ir.Shape | None:
        """Return the dimensions of `value` as a model notes them."""
        shape = self.of(value)
        return None if shape is None else ir.Shape([dim if isinstance(dim, int) else str(dim) for dim in shape])

    def update(self, nodes: Iterable[ir.Node], *, before: ir.Node | None = None) -> None:
        """Infer nodes that are new, or whose results have got other names or notes, and what that changes.

        Args:
            nodes: Nodes of the main graph, in topological order.
            before: The node in front of which new ones stand.
        """
        nodes = list(nodes)
        if before is not None:
            self._ranks.update(dict.fromkeys(nodes, self._ranks.get(before, len(self._ranks))))
        self._spread(dict.fromkeys(nodes, False))

    def changed(self, node: ir.Node) -> None:
        """Infer a node that computes something else than before, and what that changes."""
        self._spread({node: True})

    def replaced(self, old: Fact, new: ir.Value, readers: Iterable[ir.Node]) -> None:
        """Infer what changes where `readers` read `new` in place of a value of which `old` is known."""
        if self.fact(new) != old:
            self._spread(dict.fromkeys(readers, not self.agrees(new, old)))

    def agrees(self, value: ir.Value, other: Fact) -> bool:
        """Whether what is known of `value` can be true together with `other`."""
        return not _contradict(self._walk, self.fact(value), other)

    @cached_property
    def _ranks(self) -> dict[ir.Node, int]:
        """Where nodes stand; those put in later have the rank of the one that they were put before."""
        return {node: rank for rank, node in enumerate(self._walk.model.graph)}

    def _spread(self, pending: dict[ir.Node, bool]) -> None:
        """Infer nodes in the order of the graph, and those that read what comes out differently.

        Args:
            pending: The nodes, with whether what one reads contradicts what was known of it.
        """
        queue = [(self._ranks.get(node, 0), next(self._pushed), node) for node in pending]
        heapq.heapify(queue)
        while queue:
            node = heapq.heappop(queue)[-1]
            if node not in pending or node.graph is not self._walk.model.graph:
                continue
            for value, moved in self._infer_again(node, pending.pop(node)):
                for reader in {use.node: None for use in value.uses()}:
                    heapq.heappush(queue, (self._ranks.get(reader, 0), next(self._pushed), reader))
                    pending[reader] = pending.get(reader, False) or moved

    def _infer_again(self, node: ir.Node, moved: bool) -> Iterable[tuple[ir.Value, bool]]:
        """Infer one node; return the outputs of which other things were known, and whether that is no longer true."""
        walk, scope = self._walk, self._scope
        walk.body_nodes_left = min(_MAX_BODY_NODES, walk.body_nodes_left + _BODY_NODES_AGAIN)
        known = [scope.facts.get(value) for value in node.outputs]
        outs, _ = _conclude(walk, scope, _site(walk, scope, node))
        for value, out in zip(node.outputs, outs, strict=True):
            _correct(walk, value, out, moved)
        facts = _settle(walk, scope, node, outs)
        triples = zip(node.outputs, known, facts, strict=True)
        return [
            (value, _contradict(walk, old, new) or (moved and old.shape != new.shape))
            for value, old, new in triples
            if old is not None and old != new
        ]


def infer(model: ir.Model, visit: Visit | None = None) -> Shapes:
    """Infer what can be known of every value of the main graph without running it.

    A named dynamic dimension of a graph input becomes a symbol of that name, an unnamed one of input ``X``, axis ``k``,
    the symbol ``X.k``; both count as at least 1. A single dimension that cannot be told gets a fresh symbol named after
    its value and axis. What no rule settles is taken from the shape recorded in the model. Calls of model-local
    functions are inferred by walking the body with the shapes at hand.

    Args:
        model: its nodes topologically sorted; it is not changed.
        visit: called with each node that is executed, in function bodies too, and what is known of its outputs.

    Returns:
        The facts by value. Odd graphs give unknowns, never an error.
    """
    walk = _Walk(model, visit)
    scope = _Scope()
    for value in model.graph.inputs:
        scope.facts[value] = _input_fact(walk, value)
    _walk_nodes(walk, scope, model.graph)
    return Shapes(walk, scope)


def _input_fact(walk: _Walk, value: ir.Value) -> Fact:
    if value.shape is None:
        return Fact(None, value.dtype)
    dims: list[Dim] = []
    for axis, dim in enumerate(value.shape):
        # Some exporters write -1 for a dynamic size.
        if isinstance(dim, int) and dim >= 0:
            dims.append(dim)
            continue
        name = (None if isinstance(dim, int) else dim.value) or f"{value.name}.{axis}"
        dims.append(walk.inputs.setdefault(name, symbol(name, least=1)))
    return Fact(tuple(dims), value.dtype)


def _initial(value: ir.Value | None) -> Fact:
    """Return what is known of a value that no node computes."""
    if value is None:
        return Fact()
    tensor = value.const_value
    # The value of a graph input may be overridden by the caller.
    if tensor is None or value.is_graph_input() or value.producer() is not None:
        return Fact(None, value.dtype)
    try:
        shape = tuple(int(size) for size in tensor.shape.numpy())
        return Fact(shape, tensor.dtype, tensor_ints(tensor))
    except (*ODDITIES, OSError):
        return Fact(None, value.dtype)


def _walk_nodes(walk: _Walk, scope: _Scope, nodes: Iterable[ir.Node]) -> None:
    for node in nodes:
        site = _site(walk, scope, node)
        outs, entered = _conclude(walk, scope, site)
        facts = _settle(walk, scope, node, outs)
        # A call that was entered has shown its nodes already.
        if walk.visit is not None and not entered:
            walk.visit(site, facts)


def _conclude(walk: _Walk, scope: _Scope, site: Site) -> tuple[Sequence[Out], bool]:
    """Return what follows for each output of a node, and whether the body of a function was entered for it."""
    function = walk.model.functions.get(site.node.op_identifier())
    entered = function is not None and _may_enter(walk, scope, function)
    outs = _called(walk, scope, site, function) if function is not None and entered else _apply(site)
    count = len(site.node.outputs)
    return [*outs, *[_NOTHING] * count][:count], entered


def _settle(walk: _Walk, scope: _Scope, node: ir.Node, outs: Sequence[Out]) -> list[Fact]:
    facts = [_settled(walk, scope, value, out) for value, out in zip(node.outputs, outs, strict=True)]
    scope.facts.update(zip(node.outputs, facts, strict=True))
    return facts


def _site(walk: _Walk, scope: _Scope, node: ir.Node) -> Site:
    attributes: Mapping[str, ir.Attr] = node.attributes
    if scope.attributes is not None and any(attribute.is_ref() for attribute in attributes.values()):
        attributes = dict(_resolved(scope.attributes, node))
    inputs = tuple(None if value is None else _lookup(walk, scope, value) for value in node.inputs)
    return Site(node, inputs, attributes, scope.root or node)


def _resolved(given: Mapping[str, ir.Attr], node: ir.Node) -> Iterable[tuple[str, ir.Attr]]:
    for name, attribute in node.attributes.items():
        if not attribute.is_ref():
            yield name, attribute
        elif (outer := attribute.ref_attr_name) is not None and outer in given:
            yield name, given[outer]


def _lookup(walk: _Walk, scope: _Scope, value: ir.Value) -> Fact:
    fact = scope.facts.get(value)
    if fact is None:
        fact = scope.facts[value] = _unwalked(walk, scope, value)
    return fact


def _unwalked(walk: _Walk, scope: _Scope, value: ir.Value) -> Fact:
    return _input_fact(walk, value) if scope.depth == 0 and value.is_graph_input() else _initial(value)


def _apply(site: Site) -> Sequence[Out]:
    rule = RULES.get((site.node.domain, site.node.op_type))
    if rule is None:
        return ()
    try:
        result = rule(site)
    except ODDITIES:
        return ()
    return (result,) if isinstance(result, Out) else result


def _may_enter(walk: _Walk, scope: _Scope, function: ir.Function) -> bool:
    walk.body_nodes_left -= len(function)
    return walk.body_nodes_left >= 0 and scope.depth < _MAX_CALL_DEPTH


def _called(walk: _Walk, scope: _Scope, site: Site, function: ir.Function) -> Sequence[Fact]:
    """Return what is known of the outputs of a call; a body is walked once for all calls of which the same is known."""
    if walk.visit is not None or scope.depth > 0:
        return _enter(walk, scope, site, function)
    given = tuple((name, attribute.type, attribute.value) for name, attribute in site.attributes.items())
    key = (function, len(walk.model.functions), site.inputs, given)
    try:
        known = walk.known.get(key)
    except TypeError:  # a type that is an attribute has no hash
        return _enter(walk, scope, site, function)
    if known is None:
        fresh = walk.fresh
        known = _enter(walk, scope, site, function)
        if walk.fresh == fresh and walk.body_nodes_left >= 0:
            walk.known[key] = known
    return known


def _enter(walk: _Walk, scope: _Scope, site: Site, function: ir.Function) -> Sequence[Fact]:
    """Walk the body of `function` as called at `site` and return what is known of its outputs."""
    defaults = {name: attribute for name, attribute in function.attributes.items() if attribute.value is not None}
    inner = _Scope(
        attributes={**defaults, **site.attributes},
        path=f"{scope.path}{_label(site.node)}/",
        depth=scope.depth + 1,
        root=site.root,
    )
    for index, value in enumerate(function.inputs):
        inner.facts[value] = site.fact(index)
    _walk_nodes(walk, inner, function)
    return [_lookup(walk, inner, value) for value in function.outputs]


def _label(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), None) or node.name or node.op_type


def _settled(walk: _Walk, scope: _Scope, value: ir.Value, out: Out) -> Fact:
    """Fill what a rule left open from the annotation, then with fresh symbols."""
    dtype = out.dtype or value.dtype
    # A body's annotations cannot be true of all its calls.
    recorded = _recorded(walk, value) if scope.depth == 0 else None
    if out.shape is None:
        shape = recorded
    elif recorded is not None and len(recorded) == len(out.shape) and None in out.shape:
        shape = tuple(b if a is None else a for a, b in zip(out.shape, recorded, strict=True))
    else:
        shape = out.shape
    if shape is None or is_absurd(shape):
        return Fact(None, dtype)
    whole = tuple(_fresh(walk, f"{scope.path}{value.name}.{k}") if dim is None else dim for k, dim in enumerate(shape))
    return Fact(whole, dtype, out.ints if fits(whole, out.ints) else None)


def _contradict(walk: _Walk, one: Fact, other: Fact) -> bool:
    """Whether two things that were told of a value cannot both be true, as far as sizes of inputs say."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return one.shape is not None and other.shape is not None
    pairs = zip(one.shape, other.shape, strict=True)
    return any(a != b and symbols(a) | symbols(b) <= walk.inputs.keys() for a, b in pairs)


def _correct(walk: _Walk, value: ir.Value, out: Out, moved: bool) -> None:
    """Let what is noted of `value` say what follows from its inputs where the two differ.

    What does not follow stays, unless something contradicts what was known of the inputs when it was noted.
    """
    if out.dtype is not None and out.dtype != value.dtype:
        value.type = ir.TensorType(out.dtype)
    recorded = _recorded(walk, value)
    if value.shape is None or recorded is None or (out.shape is None and not moved):
        return
    if out.shape is None or len(out.shape) != len(recorded):
        value.shape = None
        return
    triples = zip(value.shape, recorded, out.shape, strict=True)
    dims = [_corrected(*triple, moved) for triple in triples]
    if dims != list(value.shape):
        value.shape = ir.Shape(dims)


def _corrected(
    written: int | ir.SymbolicDim, recorded: Dim | None, concluded: Dim | None, moved: bool
) -> int | ir.SymbolicDim | None:
    """Return what shall stand for `written`, which means `recorded`, where `concluded` follows."""
    if isinstance(concluded, int) and (moved or recorded is not None):
        return concluded
    if not moved or (concluded is not None and recorded in (None, concluded)):
        return written
    return None


def _fresh(walk: _Walk, name: str) -> Expr:
    walk.fresh += 1
    while name in walk.inputs:
        name += "'"
    return symbol(name)


def _recorded(walk: _Walk, value: ir.Value) -> PartialShape | None:
    if value.shape is None:
        return None
    # A name means something only if an input bears it: others are an exporter's expressions or inventions.
    return tuple(
        (dim if dim >= 0 else None) if isinstance(dim, int) else walk.inputs.get(dim.value or "") for dim in value.shape
    )
