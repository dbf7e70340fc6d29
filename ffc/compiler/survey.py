"""What a pass says of a model: a finding for each block, product or node that it looked at, taken or left alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ffc.compiler.log import Log
from ffc.compiler.rules import Rule, by_root, find_match
from ffc.graph.blocks.structure import Attention, Blocks, Layer, Product
from ffc.graph.dialect.edit import Editor
from ffc.graph.dialect.trace import trace

__all__ = ["Finding", "Survey", "Tried", "general", "heads", "name_of", "near_finding", "near_misses", "no_ffn"]
__all__ += ["of_product", "said", "unmatched"]

_COMMON = {"Add", "Mul"}
"""Operators that stand anywhere: that a rule could begin at one of them says nothing."""

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
    """What came of a pass that was tried on a model.

    Attributes:
        before: The model it was given.
        after: What it made of it; the model before if it refused.
        log: What it said.
        refused: Why it refused, or None.
    """

    before: ir.Model
    after: ir.Model
    log: Log
    refused: str | None


@dataclass(frozen=True)
class Survey:
    """What a pass takes of a model and what it leaves alone.

    Attributes:
        findings: What it looked at, in the order of the model.
        refused: Why it cannot be applied as asked, or None: as it was tried, unless that does not matter.
        listed: Whether each finding is shown, its name above all, rather than those alike in one row.
    """

    findings: Sequence[Finding]
    refused: str | None
    listed: bool = False


def general(rules: Sequence[Rule], tried: Tried) -> list[Finding]:
    """Return what a pass says itself, and the nodes that one of its rules nearly matched."""
    near = near_misses(rules, tried.after)
    return [*said(tried.log), *(near_finding(node, why, None) for node, why in near.items())]


def said(log: Log) -> list[Finding]:
    """Return what a pass named as taken and as left alone."""
    missed = {miss.where: miss.why for miss in log.misses if not miss.depth}
    return [_told(what, "", True) for what in dict.fromkeys(log.taken)] + [
        _told(where, why, False) for where, why in missed.items()
    ]


def _told(where: str, why: str, taken: bool) -> Finding:
    kind, _, rest = where.partition(" ")
    return Finding(kind, rest, None, "", taken, why)


def near_misses(rules: Sequence[Rule], model: ir.Model) -> dict[ir.Node, str]:
    """Return, for each node where at least half of a rule matched, the rule that got furthest and what stopped it."""
    table, editor = by_root(rules), Editor(model)
    found: dict[ir.Node, str] = {}
    for node in model.graph:
        furthest = 0
        for rule in table.get((node.domain, node.op_type), ()):
            match, depth, why = find_match(rule, node, editor)
            size = len(trace(rule.match).nodes)
            near = 2 * depth >= size and (depth > 1 or node.op_type not in _COMMON)
            if match is None and near and depth > furthest:
                furthest, found[node] = depth, f"rule {rule.name}: {why}"
    return found


def near_finding(node: ir.Node, why: str, layer: int | None) -> Finding:
    """Return what is told of a node that a rule nearly matched."""
    return Finding(node.op_type, name_of(node), layer, "", False, why)


def name_of(node: ir.Node) -> str:
    """Return what users call a node: the value that it computes."""
    return node.outputs[0].name or node.name or ""


def of_product(product: Product, layer: int | None, taken: bool, why: str) -> Finding:
    """Return what is told of a product."""
    inner, outer = product.sizes
    return Finding(product.role, product.name, layer, f"{inner}×{outer}", taken, why)


def heads(attention: Attention) -> str:
    """Return the heads of an attention in words, with their size where it is known."""
    size = "" if attention.why else f" of {attention.roles['q'].sizes[1] // attention.heads}"
    return f"{attention.heads} heads{size}"


def no_ffn(kind: str, layer: Layer) -> Finding:
    """Return what is told, as a finding of `kind`, of a layer without a feed-forward network."""
    why = "up to the next attention there are not two products with an activation between and a residual around them"
    return Finding(kind, "", layer.index, "", False, why)


def unmatched(blocks: Blocks) -> Iterator[Finding]:
    """Yield what looked like a block and is none."""
    for miss in blocks.unmatched:
        yield Finding(_KINDS[miss.kind], miss.where, None, "", False, miss.why)
