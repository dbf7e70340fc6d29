"""Products with a constant weight, in the forms in which a graph may hold them."""

from __future__ import annotations

from typing import TypeAlias

import onnx_ir as ir

from ffc.graph.blocks.structure import Product
from ffc.graph.dialect.edit import constant, producer
from ffc.graph.dialect.function import called

__all__ = ["Products", "Reader", "multiplies"]

Reader: TypeAlias = tuple[ir.Node, int]
"""A node, and which of its inputs is meant."""


class Products:
    """The products of a graph, by node and by the value they compute."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        found = [product for node in graph if (product := _product(node)) is not None]
        self.by_node = {product.node: product for product in found}
        self.by_output = {product.out: product for product in found}
        self._readers: dict[ir.Value, list[Product]] = {}
        for product in found:
            self._readers.setdefault(product.x, []).append(product)

    def only_reader(self, value: ir.Value) -> Product | None:
        """Return the product that alone reads `value` in the graph, or None if another node does too.

        One that asks for its shape alone does not count.
        """
        readers = self._readers.get(value, [])
        nodes = {use.node for use in value.uses() if use.node.op_type != "Shape"}
        return readers[0] if len(readers) == 1 and len(nodes) == 1 else None


def multiplies(node: ir.Node) -> bool:
    """Whether `node` multiplies matrices, by constants or by one another."""
    function = called(node)
    if function is not None:
        return function.family in ("attention", "product")
    return not node.domain and node.op_type in ("Attention", "Gemm", "MatMul")


def _product(node: ir.Node) -> Product | None:
    """Return `node` as a product with a constant weight, or None."""
    function = called(node)
    if function is not None and function.family == "product" and not function.quantises:
        given = function.given(node)
        x, weight, bias = node.inputs[0], given[function.weight], given.get(function.bias)
    elif node.op_type == "Gemm" and not node.domain:
        return _gemm(node)
    elif node.op_type == "MatMul" and not node.domain:
        (x, weight), bias = node.inputs, None
    else:
        return None
    weight, transposed = _stored(weight)
    array = constant(weight)
    if x is None or weight is None or array is None or array.ndim != 2 or constant(x) is not None:
        return None
    out = node.outputs[0]
    if bias is None:
        bias, out = _bias(out, array.shape[0 if transposed else 1])
    return Product(node, weight, transposed, bias, out)


def _stored(value: ir.Value | None) -> tuple[ir.Value | None, bool]:
    """Return the constant that `value` is another name of, or the transpose of; exporters leave both to runtimes."""
    transposed = False
    while (node := producer(value)) is not None and not node.domain:
        if node.op_type == "Transpose":
            perm = node.attributes.get("perm")
            transposed ^= perm is None or list(perm.as_ints()) == [1, 0]
        elif node.op_type != "Identity":
            break
        value = node.inputs[0]
    return value, transposed


def _gemm(node: ir.Node) -> Product | None:
    flags = {name: attr.value for name, attr in node.attributes.items()}
    plain = not flags.get("transA", 0) and flags.get("alpha", 1.0) == 1.0 and flags.get("beta", 1.0) == 1.0
    x, weight, bias = [*node.inputs, None][:3]
    if not plain or x is None or weight is None or constant(weight) is None:
        return None
    if bias is not None and (constant(bias) is None or constant(bias).ndim != 1):  # type: ignore[union-attr]
        return None
    return Product(node, weight, bool(flags.get("transB", 0)), bias, node.outputs[0])


def _bias(out: ir.Value, width: int) -> tuple[ir.Value | None, ir.Value]:
    """Return the bias that the only reader of `out` adds, and the value after it."""
    users = {use.node for use in out.uses()}
    if len(users) != 1 or out.is_graph_output():
        return None, out
    (node,) = users
    if node.op_type != "Add" or node.domain:
        return None, out
    other = next((value for value in node.inputs if value is not out), None)
    other, transposed = _stored(other)
    array = constant(other)
    if array is None or transposed or array.shape != (width,):
        return None, out
    return other, node.outputs[0]
