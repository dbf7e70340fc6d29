"""What the passes of the library look at: the blocks of a model, each with whether a pass took it or why not."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from ffc.compiler.chain import clone
from ffc.compiler.log import Log
from ffc.compiler.passes import Pass
from ffc.compiler.rules import by_root, find_match
from ffc.errors import CannotApplyError
from ffc.graph.blocks.finder import find
from ffc.graph.blocks.structure import Attention, Blocks, FeedForward, Layer, Product
from ffc.graph.dialect.edit import Editor
from ffc.graph.dialect.function import called
from ffc.graph.dialect.trace import trace
from ffc.pruning import LayerPlan, Plan, stamp

__all__ = ["SURVEYS", "Finding", "Tried", "general"]

_COMMON = {"Add", "Mul"}
"""Operators that stand anywhere: that a rule could begin at one of them says nothing."""

_NO_FFN = "up to the next attention there are not two products with an activation between and a residual around them"

_KINDS = {"attention": "attention", "feed-forward": "ffn"}


@dataclass(frozen=True)
class Finding:
    """A block, a product or a node that a pass looked at.

    Attributes:
        kind: ``attention``, ``ffn``, ``norm``, ``embeddings``, ``heads``, ``units``, the role of a product, or what the
            pass calls it.
        name: The value it computes, or the node.
        layer: The encoder layer it is part of, from 0, or None.
        what: Its sizes, in words.
        taken: Whether the pass takes it.
        why: What it becomes, or the condition that failed.
    """

    kind: str
    name: str
    layer: int | None
    what: str
    taken: bool
    why: str


@dataclass(frozen=True, eq=False)
class Tried:
    """A pass that was tried on a model.

    Attributes:
        item: The pass.
        before: The model it was given.
        after: What it made of it; the model before if it refused.
        log: What it said.
        refused: Why it refused, or None.
    """

    item: Pass
    before: ir.Model
    after: ir.Model
    log: Log
    refused: str | None

    @property
    def as_it_is(self) -> bool:
        """Whether no option was given that the pass could be refused for."""
        return bool(self.item == _default(type(self.item)))


def _default(kind: type[Pass]) -> Pass | None:
    try:
        return kind()
    except TypeError:  # it has options that must be given
        return None


Survey = Callable[[Tried], list[Finding]]


def general(tried: Tried) -> list[Finding]:
    """Return what a pass says itself, and the nodes that one of its rules nearly matched."""
    return [*_said(tried.log), *(_near_finding(node, why, None) for node, why in _near_misses(tried).items())]


def _said(log: Log) -> list[Finding]:
    """Return what a pass named as taken and as left alone."""
    missed = {miss.where: miss.why for miss in log.misses if not miss.depth}
    return [_told(what, "", True) for what in dict.fromkeys(log.taken)] + [
        _told(where, why, False) for where, why in missed.items()
    ]


def _told(where: str, why: str, taken: bool) -> Finding:
    kind, _, name = where.partition(" ")
    return Finding(kind, name, None, "", taken, why)


def _near_misses(tried: Tried) -> dict[ir.Node, str]:
    """Return, for each node where at least half of a rule matched, the rule that got furthest and what stopped it."""
    table, editor = by_root(tried.item.rules), Editor(tried.after)
    found: dict[ir.Node, str] = {}
    for node in tried.after.graph:
        furthest = 0
        for rule in table.get((node.domain, node.op_type), ()):
            match, depth, why = find_match(rule, node, editor)
            size = len(trace(rule.match).nodes)
            near = 2 * depth >= size and (depth > 1 or node.op_type not in _COMMON)
            if match is None and near and depth > furthest:
                furthest, found[node] = depth, f"rule {rule.name}: {why}"
    return found


def _near_finding(node: ir.Node, why: str, layer: int | None) -> Finding:
    return Finding(node.op_type, _name(node), layer, "", False, why)


def _name(node: ir.Node) -> str:
    return node.outputs[0].name or node.name or ""


# fuse


def _fuse(tried: Tried) -> list[Finding]:
    """Return every block with the call that it became, and the nodes that a rule nearly matched."""
    blocks, near = find(tried.after), _near_misses(tried)
    places = _places(tried.after, blocks)
    said = {miss.where: miss.why for miss in tried.log.misses if not miss.depth}
    told = {node for embedding in blocks.embeddings for node in embedding.nodes}
    norms = [norm.node for norm in blocks.norms if norm.node not in told]
    found = list(_embeddings(blocks, near))
    found += [_norm(node, None, near) for node in norms if places.get(node) is None]
    for layer in blocks.layers:
        found += _layer(layer, said)
        found += [_norm(node, layer.index, near) for node in norms if places.get(node) == layer.index]
    found += _unmatched(blocks)
    fused = {product.node for layer in blocks.layers for product in layer.products() if called(product.node)}
    rest = [product for product in blocks.products if product.node not in fused]  # the others are told with their layer
    found += [_product(product, places.get(product.node), near) for product in rest]
    return found + [_near_finding(node, why, places.get(node)) for node, why in near.items()]


def _places(model: ir.Model, blocks: Blocks) -> dict[ir.Node, int]:
    """Return the layer of each node: a layer lasts until the products of the next one, the last until the head."""
    order = {node: index for index, node in enumerate(model.graph)}
    starts = [min(order[node] for node in _begin(layer)) for layer in blocks.layers]
    end = min((order[product.node] for product in blocks.head), default=len(order))
    first = starts[0] if starts else end
    return {node: bisect_right(starts, index) - 1 for node, index in order.items() if first <= index < end}


def _begin(layer: Layer) -> Iterator[ir.Node]:
    """Yield the nodes of a layer of which one is the first."""
    yield from (product.node for product in layer.products())
    if layer.attention is not None:
        yield layer.attention.node


def _unmatched(blocks: Blocks) -> list[Finding]:
    return [Finding(_KINDS[miss.kind], miss.where, None, "", False, miss.why) for miss in blocks.unmatched]


def _embeddings(blocks: Blocks, near: dict[ir.Node, str]) -> Iterator[Finding]:
    for embedding in blocks.embeddings:
        node, count = embedding.nodes[-1], len(embedding.tables)
        what = "1 table" if count == 1 else f"{count} tables"
        if called(node):
            yield Finding("embeddings", _name(node), None, what, True, node.op_type)
            continue
        miss = next((near[reader] for reader in _readers(node) if reader in near), "")
        yield Finding("embeddings", _name(node), None, what, False, miss or "no rule takes what is made of the rows")


def _readers(node: ir.Node, steps: int = 4) -> Iterator[ir.Node]:
    """Yield what reads the result of `node` through so many nodes, the nearest first."""
    level = [node]
    for _ in range(steps):
        level = list(dict.fromkeys(use.node for each in level for value in each.outputs for use in value.uses()))
        yield from level


def _layer(layer: Layer, said: Mapping[str, str]) -> Iterator[Finding]:
    if layer.attention is not None:
        yield _attention(layer.attention, layer.index, said)
    if layer.ffn is not None:
        yield _ffn(layer.ffn, layer.index)
        return
    yield Finding("ffn", "", layer.index, "", False, _NO_FFN)


def _attention(attention: Attention, layer: int, said: Mapping[str, str]) -> Finding:
    taken = called(attention.node) is not None
    what = f"{_heads(attention)}, {'masked' if attention.masks else 'no mask'}"
    why = attention.node.op_type if taken else said.get(f"attention of layer {layer}", "it was not replaced")
    return Finding("attention", attention.context.name or "", layer, what, taken, why)


def _heads(attention: Attention) -> str:
    size = "" if attention.why else f" of {attention.roles['q'].sizes[1] // attention.heads}"
    return f"{attention.heads} heads{size}"


def _ffn(ffn: FeedForward, layer: int) -> Finding:
    plain = [product.role for product in (ffn.ffn_in, ffn.ffn_out) if not called(product.node)]
    what = f"{ffn.units} units, {'gated, ' if ffn.gate else ''}{ffn.activation or 'no activation'}"
    made = f"{ffn.ffn_in.node.op_type}, {ffn.ffn_out.node.op_type}"
    why = f"{' and '.join(plain)} stay as they are, see there" if plain else made
    return Finding("ffn", ffn.ffn_out.name, layer, what, not plain, why)


def _norm(node: ir.Node, layer: int | None, near: dict[ir.Node, str]) -> Finding:
    if called(node):
        more = f", no more: {near.pop(node)}" if node in near else ""
        return Finding("norm", _name(node), layer, "", True, f"{node.op_type}{more}")
    return Finding("norm", _name(node), layer, "", False, near.pop(node, "no rule begins at it"))


def _product(product: Product, layer: int | None, near: dict[ir.Node, str]) -> Finding:
    inner, outer = product.sizes
    what = f"{inner}×{outer}"
    if called(product.node):
        return Finding(product.role, product.name, layer, what, True, product.node.op_type)
    miss = next((near.pop(node) for node in (product.node, *_readers(product.node, 1)) if node in near), "")
    return Finding(product.role, product.name, layer, what, False, miss or "no rule takes it without a bias")


# prune


def _prune(tried: Tried) -> list[Finding]:
    """Return heads and units of every layer, and whether prune would take one of them away."""
    blocks = find(tried.before)
    parts = [part for layer in blocks.layers for part in _parts(layer)]
    refusals = _refusals(tried, blocks, parts) if parts else {}
    found = [
        Finding(part.kind, part.name, part.layer, part.what, part not in refusals, refusals.get(part, "can be cut"))
        for part in parts
    ]
    found += [missing for layer in blocks.layers for missing in _missing(layer)]
    return sorted(found, key=lambda one: (one.layer or 0, one.kind)) + _unmatched(blocks)


def _missing(layer: Layer) -> Iterator[Finding]:
    """Yield the parts of a layer that are not there, or not in a form that could be cut."""
    if layer.attention is not None and layer.attention.why:
        name = layer.attention.context.name or ""
        yield Finding("heads", name, layer.index, _heads(layer.attention), False, layer.attention.why)
    if layer.ffn is None:
        yield Finding("units", "", layer.index, "", False, _NO_FFN)


@dataclass(frozen=True)
class _Part:
    """What prune may cut in one layer: its heads or its units."""

    kind: Literal["heads", "units"]
    layer: int
    count: int
    name: str
    what: str

    def without_the_first(self) -> dict[str, tuple[int, ...]]:
        """Return the part of a plan that drops the first head or unit; the only one cannot be dropped and is kept."""
        return {self.kind: tuple(range(min(1, self.count - 1), self.count))}


def _parts(layer: Layer) -> Iterator[_Part]:
    attention, ffn = layer.cuttable, layer.ffn
    if attention is not None:
        names = ", ".join(product.name for product in attention.roles.values())
        yield _Part("heads", layer.index, attention.heads, names, _heads(attention))
    if ffn is not None:
        names = f"{ffn.ffn_in.name}, {ffn.ffn_out.name}"
        yield _Part("units", layer.index, ffn.units, names, f"{ffn.units} units")


def _refusals(tried: Tried, blocks: Blocks, parts: Sequence[_Part]) -> dict[_Part, str]:
    """Return why prune refuses to cut a part, for each that it does; it is asked by plans that drop a little."""
    bare = LayerPlan()
    whole = stamp(Plan(layers=tuple(bare for _ in blocks.layers)), blocks)

    def refusal(cut: Sequence[_Part]) -> str | None:
        layers = list(whole.layers)
        for part in cut:
            layers[part.layer] = layers[part.layer].model_copy(update=part.without_the_first())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "plan.json")
            Plan(layers=tuple(layers)).save(path)
            try:
                type(tried.item)(plan=path).run(clone(tried.before), Log())  # type: ignore[call-arg]
            except CannotApplyError as error:
                return str(error)
        return None

    if refusal(parts) is None:
        return {}
    alone = {part: refusal([part]) for part in parts}
    return {part: why.removeprefix(f"layer {part.layer}: ") for part, why in alone.items() if why is not None}


# int8


def _int8(tried: Tried) -> list[Finding]:
    """Return every product, and what else the pass named."""
    blocks = find(tried.before)
    layers = {product.name: layer.index for layer in blocks.layers for product in layer.products()}
    said = {} if tried.refused else {(finding.kind, finding.name): finding for finding in _said(tried.log)}
    found = []
    for product in blocks.products:
        inner, outer = product.sizes
        told = said.pop((product.role, product.name), None)
        taken = told is not None and told.taken
        why = "int8" if taken else told.why if told else "the pass does not say"
        found.append(Finding(product.role, product.name, layers.get(product.name), f"{inner}×{outer}", taken, why))
    return [*found, *said.values()]


SURVEYS: Mapping[str, Survey] = {"fuse": _fuse, "prune": _prune, "int8": _int8}
"""What is shown of the passes that work on blocks; of others, what they say themselves."""
