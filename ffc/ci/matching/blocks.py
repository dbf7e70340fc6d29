"""Which part of an encoder each node lies in, as far as its norms and its attention tell: to fold drawings by."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ffc.ci.matching.snapshot import Graph, Source, Weight

__all__ = ["blocks"]

_NORM = re.compile(r"Norm|^Embed")
_ATTENTION = re.compile(r"Softmax|Attention")
_LARGE = 64


def blocks(graph: Graph) -> list[str]:
    """Return the block of each node.

    A section ends with a norm. One with a softmax is ``layer 3/attention``, the one after it
    ``layer 3/feed-forward``; what comes before the first norm is ``embeddings``, what comes after the last ``head``,
    and what several need of inputs alone, such as a mask, ``inputs``. Without norms there is one block, ``graph``.
    """
    sections = _sections(graph)
    last = max(sections, default=0)
    if not last:
        return ["graph"] * len(sections)
    attends = [False] * (last + 1)
    for node, section in zip(graph.nodes, sections, strict=True):
        attends[section] |= bool(_ATTENTION.search(_kind(node.op)))
    names, layer = [], -1
    for section in range(last + 1):
        layer += attends[section]
        if attends[section]:
            names.append(f"layer {layer}/attention")
        elif section == last:
            names.append("head")
        else:
            names.append("embeddings" if layer < 0 else f"layer {layer}/feed-forward")
    readers = _readers(graph, sections)
    return [
        names[section] if found is None else names[min(found)] if len(found) == 1 else "inputs"
        for section, found in zip(sections, readers, strict=True)
    ]


def _sections(graph: Graph) -> list[int]:
    found: list[int] = []
    section = 0
    for index, node in enumerate(graph.nodes):
        found.append(found[index - 1] if index and _ends_norm(graph, index) else section)
        section += bool(_NORM.search(_kind(node.op))) or _is_root_of_variance(graph, index)
    return found


def _ends_norm(graph: Graph, index: int) -> bool:
    """Whether a node adds to the norm before it, or multiplies it by, a weight: the rest of a norm written out."""
    node = graph.nodes[index]
    follows = index - 1 in node.sources
    before = graph.nodes[index - 1]
    scaled = any(isinstance(operand, Weight) and operand.size >= _LARGE for operand in node.operands)
    kinds = {"Add": ("RMSNormalization", "Mul"), "Mul": ("Div",), "Div": ("Sqrt",)}
    return follows and _kind(before.op) in kinds.get(node.op, ()) and (scaled or node.op == "Div")


def _kind(op: str) -> str:
    return op.rpartition(".")[2]


def _is_root_of_variance(graph: Graph, index: int) -> bool:
    """Whether a node is the Sqrt of a norm that was written out, as exporters did before there was an operator."""
    place = index
    for kinds in (("Sqrt",), ("Add",), ("ReduceMean",)):
        if graph.nodes[place].op not in kinds:
            return False
        sources = graph.nodes[place].sources
        if not sources:
            return kinds == ("ReduceMean",)
        place = sources[0]
    return True


def _readers(graph: Graph, sections: Sequence[int]) -> list[set[int] | None]:
    """Return for each node that depends on no weight the sections that need it, and None for the others."""
    computed = _from_weights(graph)
    found: list[set[int] | None] = [None] * len(sections)
    for index in reversed(range(len(sections))):
        if not computed[index] and sections[index]:
            needed: set[int] = set()
            for reader, _, _ in graph.consumers[index]:
                needed |= found[reader] or {sections[reader]}
            found[index] = needed or {sections[index]}
    return found


def _from_weights(graph: Graph) -> list[bool]:
    """Return for each node whether its values, and not only its shape, come of a large weight."""
    found: list[bool] = []
    for node in graph.nodes:
        weighty = any(
            operand.size >= _LARGE and operand.type.startswith(("f", "bf", "i8"))
            if isinstance(operand, Weight)
            else isinstance(operand, Source) and operand.node >= 0 and found[operand.node]
            for operand in node.operands
        )
        found.append(weighty and node.op not in ("Shape", "Size"))
    return found
