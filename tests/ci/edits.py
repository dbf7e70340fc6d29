"""Random edits of a model of which the truth is known: what a differ is held against.

`edit` makes changes and tells which, each the least description of what it did.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from tests.ci.facts import Facts, Type, contents, is_constant, sound, values

ALL = ("attribute", "weight-value", "weight-shape", "inserted", "removed", "rewired")
"""The kinds of edits."""

_UNARY = ("Relu", "Tanh", "Sigmoid", "Neg", "Abs")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
_CASTS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)
_BROADCAST = ("Add", "And", "Div", "Equal", "Expand", "Mul", "Pow", "Sub", "Where")
_FLAGS = ("allowzero", "exclusive", "keepdims", "reverse", "saturate", "stash_type", "transA", "transB")
_WORDS = {"approximate": ("none", "tanh"), "reduction": ("none", "add", "mul", "min", "max")}
_OTHER_TYPE = {"float32": "float64", "float64": "float32", "int64": "int32", "int32": "int64"}


@dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        kind: One of `ALL`.
        node: The node concerned, by its name in the original; an inserted one by its name in the edited model. Of
            those that read a changed weight, the first.
        detail: The attribute's name; "slot 1" for an operand; the operator for nodes inserted and removed.
        places: Of a changed weight, every node and slot that read it.
    """

    kind: str
    node: str
    detail: str
    places: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class _Made:
    """An edit, and the nodes and values that no other may come near."""

    edit: Edit
    core: tuple[str | None, ...]


@dataclass(frozen=True)
class _Site:
    """A node of a model that may be changed."""

    model: ir.Model
    node: ir.Node
    facts: Facts
    random: np.random.Generator

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.random.integers(len(options)))]

    def type(self, value: ir.Value | None) -> Type | None:
        return None if value is None else self.facts.types.get(value.name or "")

    def fresh(self, stem: str) -> str:
        """Return a name that no value and no node has."""
        graph = self.model.graph
        taken = {value.name for value in values(graph)} | {node.name for node in graph}
        return next(name for number in itertools.count() if (name := f"{stem}_{number}") not in taken)

    def initializer(self, array: np.ndarray) -> ir.Value:
        name = self.fresh("fresh")
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value


def named(model: ir.Model) -> ir.Model:
    """Give all nodes and values names of their own, in place, and return the model."""
    NameFixPass()(model)
    for value in values(model.graph):
        contents(value)  # onnx_ir names the tensor of a Constant when it is first read
    return model


def edit(
    model: ir.Model, rng: np.random.Generator, count: int, kinds: Sequence[str] = ALL
) -> tuple[ir.Model, list[Edit]]:
    """Return a copy of `model` with `count` random edits, and those.

    The kinds take turns in random order; one that finds no place left gives its turn to the next. No two edits share
    a node, and none changes a node or value that another inserted, removed or rewired. The edited model passes the
    checker and, but for a weight that became double, inference of shapes and types.

    Args:
        model: A model with the names that `named` gives; it stays as it is.
        rng: The only source of chance.
        count: How many.
        kinds: Which, of `ALL`.

    Raises:
        ValueError: If there is no place for so many.
    """
    made: list[Edit] = []
    touched: set[str | None] = set()
    turns: list[str] = []
    while len(made) < count:
        if not turns:
            turns = [kinds[int(index)] for index in rng.permutation(len(kinds))]
        for kind in [turns.pop(), *(kinds[int(index)] for index in rng.permutation(len(kinds)))]:
            found = _one(model, rng, kind, touched)
            if found is not None:
                break
        else:
            raise ValueError(f"no place for more than {len(made)} edits, {count} wanted")
        model, change = found
        made.append(change.edit)
        touched.update(change.core)
    return (model if made else model.clone()), made


def _one(
    model: ir.Model, rng: np.random.Generator, kind: str, touched: set[str | None]
) -> tuple[ir.Model, _Made] | None:
    """Return a copy with one more edit, None if there is no place for one."""
    facts = Facts(model)
    nodes = [index for index, node in enumerate(model.graph) if not is_constant(node) and node.name not in touched]
    copy = None
    for index in rng.permutation(nodes):
        copy = copy or model.clone()
        made = _MAKERS[kind](_Site(copy, copy.graph[int(index)], facts, rng))
        if made is None:
            continue
        if touched.isdisjoint(made.core) and sound(copy):
            return copy, made
        copy = None  # it is changed
    return None


def _attribute(site: _Site) -> _Made | None:
    """Change an attribute, or remove one that is not what its absence would mean."""
    node, options = site.node, []
    known = site.type(node.inputs[0]) if node.inputs else None
    rank = len(known[1]) if known else 0
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        options += [(name, other) for other in _others(site, attribute, rank)[:1]]
        if _removable(site, attribute, rank):
            options.append((name, None))
    if not options:
        return None
    name, other = site.pick(options)
    if other is None:
        del node.attributes[name]
    else:
        node.attributes[name] = ir.Attr(name, node.attributes[name].type, other)
    return _Made(Edit("attribute", node.name or "", name), (node.name or "",))


def _others(site: _Site, attribute: ir.Attr, rank: int) -> list[Any]:
    """Return other values of an attribute that mean something else, in random order."""
    name, value, found = attribute.name, attribute.value, []
    if attribute.type == ir.AttributeType.FLOAT:
        found = [value * 3 + 1e-6, value * 0.5 + 1e-3]
    elif attribute.type == ir.AttributeType.STRING:
        found = [word for word in _WORDS.get(name, ()) if word != value]
    elif attribute.type == ir.AttributeType.TENSOR:
        found = [ir.Tensor(_changed(value.numpy(), site.random, whole=True), name=value.name)]
    elif name == "perm":
        found = [each for each in itertools.permutations(range(rank)) if each != tuple(value)]
    elif name == "to":
        found = [int(each) for each in _CASTS if each != value]
    elif name in _FLAGS:
        found = [1 - value]
    elif name in ("axis", "start", "end") and rank:
        found = [each for each in range(rank) if each != value % rank]
    return [found[int(index)] for index in site.random.permutation(len(found))]


def _removable(site: _Site, attribute: ir.Attr, rank: int) -> bool:
    node, name, value = site.node, attribute.name, attribute.value
    try:
        schema = onnx.defs.get_schema(node.op_type, site.model.opset_imports[node.domain], node.domain)
    except onnx.defs.SchemaError:
        return False
    told = schema.attributes[name]
    if told.required or attribute.type == ir.AttributeType.TENSOR:
        return False
    if name in ("perm", "end"):
        return bool(value != rank if name == "end" else tuple(value) != tuple(reversed(range(rank))))
    if told.default_value.type == onnx.AttributeProto.UNDEFINED:
        return True
    default = onnx.helper.get_attribute_value(told.default_value)
    if name == "axis" and rank:
        return bool(default % rank != value % rank)
    return bool((default.decode() if isinstance(default, bytes) else default) != value)


def _weight_value(site: _Site) -> _Made | None:
    """Change one element of a weight or all, where it is read everywhere or for this node alone."""
    found = _weight(site)
    if found is None:
        return None
    slot, array = found
    changed = _changed(array, site.random, whole=bool(site.random.integers(2)))
    return _replaced(site, slot, changed, "weight-value", alone=bool(site.random.integers(2)))


def _weight_shape(site: _Site) -> _Made | None:
    """Change the type or the shape of a weight, for this node alone: a row more, a leading 1, the other width."""
    found = _weight(site)
    if found is None:
        return None
    slot, array = found
    node, known = site.node, site.type(site.node.outputs[0])
    ways = []
    if node.op_type == "Gather" and slot == 0:
        axis = node.attributes.get_int("axis", 0)
        ways.append(np.concatenate([array, array.take([-1], axis)], axis))
    if known is not None and array.ndim < len(known[1]) and node.op_type in _BROADCAST:
        ways.append(array[None])
    if array.dtype.name in _OTHER_TYPE:
        ways.append(array.astype(_OTHER_TYPE[array.dtype.name]))
    return _replaced(site, slot, site.pick(ways), "weight-shape") if ways else None


def _weight(site: _Site) -> tuple[int, np.ndarray] | None:
    """Return a random slot that reads a constant that is not empty, and its contents."""
    found = [
        (slot, array)
        for slot, value in enumerate(site.node.inputs)
        if (array := contents(value)) is not None and array.size and array.dtype.kind in "fiub"
    ]
    chosen: tuple[int, np.ndarray] | None = site.pick(found) if found else None
    return chosen


def _changed(array: np.ndarray, rng: np.random.Generator, *, whole: bool) -> np.ndarray:
    """Return a copy that differs in every element or in one."""
    if array.dtype.kind == "b":
        other = ~array
    elif array.dtype.kind in "iu":
        other = np.where(array < np.iinfo(array.dtype).max, array + 1, array - 1)
    else:
        other = np.where(np.isfinite(array), array / 2 + np.where(array < 0.5, 1, -0.5) * rng.uniform(0.25, 0.75), 1)
    other = other.astype(array.dtype).reshape(array.shape)
    if whole:
        return other
    changed = array.copy()
    place = np.unravel_index(int(rng.integers(array.size)), array.shape)
    changed[place] = other[place]
    return changed


def _replaced(site: _Site, slot: int, array: np.ndarray, kind: str, *, alone: bool = True) -> _Made | None:
    """Put `array` in place of the weight at `slot`: for this node alone, or for all that read it."""
    node, value = site.node, site.node.inputs[slot]
    old = contents(value)
    assert value is not None and old is not None
    if array.dtype == old.dtype and array.shape == old.shape and np.array_equal(array, old):
        return None
    places = [(use.node.name or "", use.idx) for use in value.uses()]
    if alone and len(places) > 1:
        node.replace_input_with(slot, site.initializer(array))
        places = [(node.name or "", slot)]
    else:
        tensor = ir.Tensor(array, name=value.name)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
        value.const_value, producer = tensor, value.producer()
        if producer is not None:
            producer.attributes.clear()
            producer.attributes["value"] = ir.AttrTensor("value", tensor)
    order = {each.name: index for index, each in enumerate(site.model.graph)}
    places.sort(key=lambda place: (order[place[0]], place[1]))
    first, index = places[0]
    return _Made(Edit(kind, first, f"slot {index}", tuple(places)), tuple(name for name, _ in places))


def _inserted(site: _Site) -> _Made | None:
    """Insert a node that keeps the type after this one: before one consumer, or before all and the graph's output."""
    graph, x = site.model.graph, site.node.outputs[0]
    known, uses = site.type(x), list(x.uses())
    if known is None or known[0] not in _FLOATS or not uses:
        return None
    near = {site.node.op_type, *(use.node.op_type for use in uses)}
    dtype, width = known[0].numpy(), known[1][-1] if known[1] else None
    op = site.pick([op for op in (*_UNARY, "Mul", "Add") if op not in near])
    operands = [x]
    if op in ("Mul", "Add"):
        shape = (width,) if op == "Add" and isinstance(width, int) else ()
        operands.append(site.initializer(site.random.uniform(0.5, 1.5, shape).astype(dtype)))
    node = ir.node(op, operands, name=site.fresh("inserted"))
    result = node.outputs[0]
    result.name, result.type, result.shape = site.fresh("inserted_out"), x.type, x.shape
    if site.random.integers(2):
        uses = [site.pick(uses)]
    elif x.is_graph_output():
        graph.outputs[graph.outputs.index(x)] = result
        x.name, result.name = site.fresh("inner"), x.name
    graph.insert_after(site.node, node)
    for use in uses:
        use.node.replace_input_with(use.idx, result)
    core = [node.name, site.node.name, f"%{x.name}", f"%{result.name}", *(use.node.name for use in uses)]
    return _Made(Edit("inserted", node.name or "", op), tuple(core))


def _removed(site: _Site) -> _Made | None:
    """Remove a node, its output replaced by an operand of the same type; what fed it alone must be constants."""
    graph, node, out = site.model.graph, site.node, site.node.outputs[0]
    operands = [value for value in node.inputs if value is not None and contents(value) is None]
    others = [value for value in node.outputs[1:] if value.uses() or value.is_graph_output()]
    same = [value for value in operands if site.type(value) == site.type(out)] if site.type(out) else []
    if not same or others or any(not _has_other_use(value, node) for value in operands if value is not same[0]):
        return None
    kept, uses = same[0], list(out.uses())
    near = [kept.producer(), *(use.node for use in uses)]
    if len(node.inputs) == 1 and any(each is not None and each.op_type == node.op_type for each in near):
        return None  # of two alike in a row, either may be the one that went
    core = [node.name, f"%{out.name}", *(use.node.name for use in uses)]
    for value in operands:
        producer = value.producer()
        core += [f"%{value.name}"] + ([producer.name] if producer else [])
    if out.is_graph_output():
        if kept.producer() is None or kept.is_graph_output():
            return None
        graph.outputs[graph.outputs.index(out)] = kept
        out.name, kept.name = site.fresh("gone"), out.name
    out.replace_all_uses_with(kept)
    constants = [value for value in node.inputs if value is not None and value not in operands]
    graph.remove(node, safe=True)
    for value in constants:
        _drop(graph, value)
    return _Made(Edit("removed", node.name or "", node.op_type), tuple(core))


def _rewired(site: _Site) -> _Made | None:
    """Let an operand be another value of its type, one that means something else and stands before the node."""
    node = site.node
    slots = [
        slot
        for slot, value in enumerate(node.inputs)
        if value is not None and contents(value) is None and site.type(value) and _has_other_use(value, node)
    ]
    if not slots:
        return None
    slot = site.pick(slots)
    old = node.inputs[slot]
    assert old is not None
    before = itertools.takewhile(lambda each: each is not node, site.model.graph)
    values = [*site.model.graph.inputs, *(value for each in before if not is_constant(each) for value in each.outputs)]
    meanings = site.facts.meanings
    options = [
        value
        for value in values
        if site.type(value) == site.type(old) and meanings[value.name or ""] != meanings[old.name or ""]
    ]
    if not options:
        return None
    new = site.pick(options)
    node.replace_input_with(slot, new)
    core = [node.name]
    for value in (old, new):
        producer = value.producer()
        core += [f"%{value.name}"] + ([producer.name] if producer else [])
    return _Made(Edit("rewired", node.name or "", f"slot {slot}"), tuple(core))


_MAKERS: dict[str, Callable[[_Site], _Made | None]] = {
    "attribute": _attribute,
    "weight-value": _weight_value,
    "weight-shape": _weight_shape,
    "inserted": _inserted,
    "removed": _removed,
    "rewired": _rewired,
}


def _has_other_use(value: ir.Value, node: ir.Node) -> bool:
    return value.is_graph_output() or any(use.node is not node for use in value.uses())


def _drop(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a constant that nothing reads any more."""
    producer = value.producer()
    if value.uses():
        return
    if producer is None:
        graph.initializers.pop(value.name or "", None)
    elif producer.graph is graph:
        graph.remove(producer, safe=True)
