"""What a model costs: nodes, parameters, bytes and multiply-accumulates at a stated batch size and length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ffc.graph.order import subgraphs
from ffc.graph.shapes.dim import Dim, Expr, evaluate, product
from ffc.graph.shapes.inference import Shapes, infer
from ffc.graph.shapes.kernels import einsum_sizes
from ffc.graph.shapes.rule import ODDITIES, Fact, Shape, Site, UnknownError

__all__ = ["Cost", "ProductCounter", "cost", "is_parameter", "products"]

# Operators that multiply and accumulate but have no formula here.
_UNCOUNTED = frozenset(
    """Conv ConvInteger ConvTranspose DecoderMaskedMultiHeadAttention GRU GroupQueryAttention LSTM
    LongformerAttention MoE PackedAttention PackedMultiHeadAttention QAttention QLinearConv QMoE RNN""".split()
)

_MATMULS = """DynamicQuantizeMatMul FusedGemm FusedMatMul Gemm MatMul MatMulInteger MatMulIntegerToFloat QLinearMatMul
    TransposeMatMul""".split()

_DOMAINS = frozenset(("", "ai.onnx", "com.microsoft"))


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass.

    Attributes:
        nodes: nodes of the main graph.
        parameters: elements of the floating, int8 and uint8 initializers of rank >= 1, a shared tensor counted once.
        bytes: size of all initializers, a shared tensor counted once.
        macs: multiply-accumulates of all products whose size is known.
        macs_unknown: number of products whose size is not known.
    """

    nodes: int
    parameters: int
    bytes: int
    macs: int
    macs_unknown: int


def cost(model: ir.Model, batch: int = 1, length: int = 128) -> Cost:
    """Return what `model` costs at `batch` rows of `length` tokens.

    Args:
        model: its nodes topologically sorted.
        batch: size of the symbolic axis 0 of the inputs.
        length: size of the symbolic axis 1 of the inputs, in tokens.
    """
    tensors = {
        id(tensor): tensor for value in model.graph.initializers.values() if (tensor := value.const_value) is not None
    }
    counted = products(model, batch, length)
    return Cost(
        nodes=len(model.graph),
        parameters=sum(tensor.size for tensor in tensors.values() if is_parameter(tensor)),
        bytes=sum(tensor.nbytes for tensor in tensors.values()),
        macs=sum(macs for _, macs in counted if macs is not None),
        macs_unknown=sum(macs is None for _, macs in counted),
    )


def products(model: ir.Model, batch: int = 1, length: int = 128) -> list[tuple[ir.Node, int | None]]:
    """Return the multiply-accumulates of every product of `model`, in the order of execution.

    Args:
        model: its nodes topologically sorted.
        batch: size of the symbolic axis 0 of the inputs.
        length: size of the symbolic axis 1 of the inputs, in tokens.

    Returns:
        Pairs of a node of the main graph and the count, None where a size is not known. A product inside a function
        is listed under the call, so a call appears once for each product in it.
    """
    counter = ProductCounter(model)
    return counter.counts(infer(model, counter.visit), batch, length)


class ProductCounter:
    """Counts the products of a model while its shapes are inferred."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._found: list[tuple[ir.Node, Dim | None]] = []

    def visit(self, site: Site, outputs: Sequence[Fact]) -> None:
        """Take note of one node; a `Visit` of `infer`."""
        found = self._found
        if site.node.op_identifier() in self._model.functions or site.node.op_type in _UNCOUNTED:
            found.append((site.root, None))
        elif site.node.op_type in _FORMULAS and site.node.domain in _DOMAINS:
            found.append((site.root, _macs(site, outputs)))
        # Nothing is known of how often a branch or a loop body runs.
        nested = (node for graph in subgraphs(site.node) for node in graph.all_nodes())
        found.extend((site.root, None) for node in nested if node.op_type in _FORMULAS.keys() | _UNCOUNTED)

    def counts(self, shapes: Shapes, batch: int, length: int) -> list[tuple[ir.Node, int | None]]:
        """Return what `products` does, once `shapes` have been inferred."""
        sizes = _sizes([shapes.of(value) or () for value in self._model.graph.inputs], batch, length)
        return [(node, None if macs is None else _evaluated(macs, sizes)) for node, macs in self._found]


def is_parameter(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor counts among the parameters of a model: not a scalar, and of numbers that are learned."""
    bytewise = tensor.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    return len(tensor.shape) > 0 and (bytewise or tensor.dtype.is_floating_point())


def _sizes(shapes: Sequence[Shape], batch: int, length: int) -> dict[str, int]:
    """Return the size of every symbol on axis 0 and 1 of the inputs; axis 0 goes first where one is on both."""
    sizes: dict[str, int] = {}
    for axis, size in ((0, batch), (1, length)):
        for shape in shapes:
            if len(shape) > axis and isinstance(shape[axis], Expr):
                sizes.setdefault(str(shape[axis]), size)
    return sizes


def _evaluated(macs: Dim, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate(macs, sizes)
    except (KeyError, ZeroDivisionError):
        return None


def _macs(site: Site, outputs: Sequence[Fact]) -> Dim | None:
    try:
        return _FORMULAS[site.node.op_type](site, outputs)
    except ODDITIES:
        return None


def _result(outputs: Sequence[Fact]) -> Shape:
    if not outputs or outputs[0].shape is None:
        raise UnknownError
    return outputs[0].shape


def _matmul_macs(site: Site, outputs: Sequence[Fact]) -> Dim:
    a = site.shape(0)
    transposed = site.attr("transA", 0) and len(a) > 1
    return product(_result(outputs)) * a[-2 if transposed else -1]


def _packed_macs(site: Site, outputs: Sequence[Fact]) -> Dim:
    return product(_result(outputs)) * int(site.attr("K"))


def _einsum_macs(site: Site, outputs: Sequence[Fact]) -> Dim:
    sizes, _ = einsum_sizes(site)
    # One operand is summed or moved, not multiplied.
    return product(sizes.values()) if len(site.inputs) > 1 else 0


def _scores_and_values(rows: Dim, keys: Dim, query_width: Dim, value_width: Dim) -> Dim:
    """Return the cost of q k^T and of probabilities times v; the widths are summed over the heads."""
    return rows * keys * (query_width + value_width)


def _attention_macs(site: Site, outputs: Sequence[Fact]) -> Dim:
    if site.node.domain == "com.microsoft":
        return _projecting_attention_macs(site, outputs)
    q, k, y = site.shape(0), site.shape(1), _result(outputs)
    keys = k[-2] + (site.shape(4)[2] if site.has(4) else 0)
    heads = q[1] if len(q) == 4 else 1
    return _scores_and_values(q[0] * q[-2], keys, heads * q[-1], heads * y[-1])


def _projecting_attention_macs(site: Site, outputs: Sequence[Fact]) -> Dim:
    x, weight, y = site.shape(0), site.shape(1), _result(outputs)
    keys = x[1] + (site.shape(4)[3] if site.has(4) else 0)
    # The columns of the weight are those of q, of k (as many) and of v.
    query_width = (weight[1] - y[2]) // 2
    rows = x[0] * x[1]
    return rows * product(weight) + _scores_and_values(rows, keys, query_width, y[2])


def _multi_head_macs(site: Site, outputs: Sequence[Fact]) -> Dim:
    query, y = site.shape(0), _result(outputs)
    if site.has(6):  # a past of keys and values, in a layout that differs between versions
        raise UnknownError
    if len(query) == 5:
        keys, width = query[1], query[2] * query[4]
    else:
        key = site.shape(1)
        keys, width = (key[2] if len(key) == 4 else key[1]), query[2]
    return _scores_and_values(query[0] * query[1], keys, width, y[2])


_FORMULAS: dict[str, Callable[[Site, Sequence[Fact]], Dim]] = {
    **dict.fromkeys(_MATMULS, _matmul_macs),
    "Attention": _attention_macs,
    "Einsum": _einsum_macs,
    "MatMulNBits": _packed_macs,
    "MultiHeadAttention": _multi_head_macs,
}
