"""Shape rules of products, norms, reductions, attention and quantisation, ``com.microsoft`` included."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ffc.graph.shapes.dim import Dim, maximum, minimum, product
from ffc.graph.shapes.rule import Out, PartialShape, Shape, Site, UnknownError, broadcast, normal_axis, op, same

__all__: list[str] = ["einsum_sizes"]

MS = "com.microsoft"


def _matmul(a: Shape, b: Shape) -> PartialShape:
    if len(a) == 1 and len(b) == 1:
        return ()
    if len(a) == 1:
        return (*b[:-2], b[-1])
    if len(b) == 1:
        return a[:-1]
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


@op("MatMul")
@op("DynamicQuantizeMatMul", domain=MS)
def _product(site: Site) -> Out:
    return Out(_matmul(site.shape(0), site.shape(1)), site.dtype())


@op("MatMulInteger")
def _integer_product(site: Site) -> Out:
    return Out(_matmul(site.shape(0), site.shape(1)), ir.DataType.INT32)


@op("QLinearMatMul")
def _quantized_product(site: Site) -> Out:
    return Out(_matmul(site.shape(0), site.shape(3)), site.dtype(7))


@op("MatMulIntegerToFloat", domain=MS)
def _scaled_product(site: Site) -> Out:
    return Out(_matmul(site.shape(0), site.shape(1)), site.dtype(2))


@op("MatMulNBits", domain=MS)
def _packed_product(site: Site) -> Out:
    return Out((*site.shape(0)[:-1], site.attr("N")), site.dtype())


@op("FusedMatMul", "TransposeMatMul", domain=MS)
def _fused_product(site: Site) -> Out:
    if site.attr("transBatchA", 0) or site.attr("transBatchB", 0):
        raise UnknownError
    a, b = site.shape(0), site.shape(1)
    # A transposed vector is a vector still.
    a = (*a[:-2], a[-1], a[-2]) if site.attr("transA", 0) and len(a) > 1 else a
    b = (*b[:-2], b[-1], b[-2]) if site.attr("transB", 0) and len(b) > 1 else b
    return Out(_matmul(a, b), site.dtype())


@op("Gemm")
@op("FusedGemm", domain=MS)
def _gemm(site: Site) -> Out:
    a, b = site.shape(0), site.shape(1)
    return Out((a[1 if site.attr("transA", 0) else 0], b[0 if site.attr("transB", 0) else 1]), site.dtype())


def einsum_sizes(site: Site) -> tuple[dict[str, Dim], str]:
    """Return the size of every label of an Einsum and its output labels; ellipses raise UnknownError."""
    equation = site.attr("equation", b"")
    text = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    terms, arrow, output = text.partition("->")
    labels = terms.split(",")
    if "." in text or len(labels) != len(site.inputs):
        raise UnknownError
    sizes: dict[str, Dim] = {}
    for index, term in enumerate(labels):
        for label, dim in zip(term, site.shape(index), strict=True):
            # A size of 1 may broadcast against another.
            known = sizes.get(label, 1)
            sizes[label] = dim if known == 1 else known if dim == 1 else same(known, dim) or known
    letters = terms.replace(",", "")
    implicit = "".join(sorted(label for label in sizes if letters.count(label) == 1))
    return sizes, output if arrow else implicit


@op("Conv")
def _conv(site: Site) -> Out:
    x, w = site.shape(0), site.shape(1)
    size = w[2:]
    if site.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or not all(isinstance(dim, int) for dim in size):
        raise UnknownError
    rank = len(size)
    strides, dilations = site.attr("strides", [1] * rank), site.attr("dilations", [1] * rank)
    pads = site.attr("pads", [0] * 2 * rank)
    room = [dim + pads[axis] + pads[axis + rank] - 1 for axis, dim in enumerate(x[2:])]
    reach = [(dim - 1) * dilation for dim, dilation in zip(size, dilations, strict=True)]
    out = [(free - used) // step + 1 for free, used, step in zip(room, reach, strides, strict=True)]
    return Out((x[0], w[0], *out), site.dtype())


@op("Einsum")
def _einsum(site: Site) -> Out:
    sizes, output = einsum_sizes(site)
    return Out(tuple(sizes[label] for label in output), site.dtype())


@op("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(site: Site) -> tuple[Out, ...]:
    shape = site.shape(0)
    axis = site.axis(-1, len(shape))
    statistic = Out(shape[:axis] + (1,) * (len(shape) - axis), ir.DataType(site.attr("stash_type", 1)))
    return Out(shape, site.dtype()), statistic, statistic


@op("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MS)
def _skip_layer_norm(site: Site) -> tuple[Out, ...]:
    shape = site.shape(0)
    statistic = Out((*shape[:-1], 1), ir.DataType.FLOAT)
    return Out(shape, site.dtype()), statistic, statistic, Out(shape, site.dtype())


@op("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "RotaryEmbedding", domain=MS)
def _like_first(site: Site) -> Out:
    return Out(site.shape(0), site.dtype())


@op("GlobalAveragePool", "GlobalMaxPool")
def _pooled(site: Site) -> Out:
    shape = site.shape(0)
    return Out((*shape[:2], *(1,) * (len(shape) - 2)), site.dtype())


_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()
_FOLDS: dict[str, Callable[[tuple[Dim, ...]], Dim]] = {"ReduceProd": product, "ReduceSum": sum}
_EXTREMES: dict[str, Callable[..., Dim]] = {"ReduceMax": maximum, "ReduceMin": minimum}


@op(*[f"Reduce{name}" for name in _REDUCTIONS])
def _reduce(site: Site) -> Out:
    shape = site.shape(0)
    axes = site.axes(1)
    if not axes:
        if site.attr("noop_with_empty_axes", 0):
            return Out(shape, site.dtype(), site.fact(0).ints)
        axes = tuple(range(len(shape)))
    gone = {normal_axis(axis, len(shape)) for axis in axes}
    return Out(_without(shape, gone, site.attr("keepdims", 1)), site.dtype(), _folded(site, gone))


def _without(shape: Shape, gone: set[int], keep: int) -> Shape:
    if keep:
        return tuple(1 if axis in gone else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in gone)


def _folded(site: Site, gone: set[int]) -> tuple[Dim, ...] | None:
    ints, name = site.fact(0).ints, site.node.op_type
    if not ints:
        return None
    if not gone:
        return ints
    if name in _FOLDS:
        return (_FOLDS[name](ints),)
    return (_EXTREMES[name](*ints),) if name in _EXTREMES else None


@op("ArgMax", "ArgMin")
def _arg_extreme(site: Site) -> Out:
    shape = site.shape(0)
    return Out(_without(shape, {site.axis(0, len(shape))}, site.attr("keepdims", 1)), ir.DataType.INT64)


@op("TopK")
def _top_k(site: Site) -> tuple[Out, Out]:
    shape = site.shape(0)
    axis = site.axis(-1, len(shape))
    count = site.attr("k") if site.attr("k") is not None else site.fact(1).ints
    size = count[0] if isinstance(count, tuple) else count
    result = (*shape[:axis], size, *shape[axis + 1 :])
    return Out(result, site.dtype()), Out(result, ir.DataType.INT64)


@op("QuantizeLinear")
@op("QuantizeLinear", domain=MS)
def _quantize(site: Site) -> Out:
    stated = site.attr("output_dtype", 0)
    dtype = ir.DataType(stated) if stated else ir.DataType.UINT8
    return Out(site.shape(0), site.dtype(2) if site.has(2) else dtype)


@op("DequantizeLinear")
@op("DequantizeLinear", domain=MS)
def _dequantize(site: Site) -> Out:
    stated = site.attr("output_dtype", 0)
    return Out(site.shape(0), ir.DataType(stated) if stated else site.dtype(1))


@op("DynamicQuantizeLinear")
def _dynamic_quantize(site: Site) -> tuple[Out, ...]:
    return Out(site.fact(0).shape, ir.DataType.UINT8), Out((), ir.DataType.FLOAT), Out((), ir.DataType.UINT8)


@op("Attention")
def _attention(site: Site) -> tuple[Out, ...]:
    q, k, v = site.shape(0), site.shape(1), site.shape(2)
    past: Dim = site.shape(4)[2] if site.has(4) else 0
    if len(q) == 4:
        keys = k[2] + past
        y: Shape = (q[0], q[1], q[2], v[3])
        present_k, present_v = (k[0], k[1], keys, k[3]), (v[0], v[1], keys, v[3])
        heads = q[1]
    else:
        heads, kv_heads = site.attr("q_num_heads"), site.attr("kv_num_heads")
        keys = k[1] + past
        value_size = v[2] // kv_heads
        y = (q[0], q[1], heads * value_size)
        present_k, present_v = (k[0], kv_heads, keys, k[2] // kv_heads), (v[0], kv_heads, keys, value_size)
    scores = (q[0], heads, q[-2], keys)
    return (
        Out(y, site.dtype()),
        Out(present_k, site.dtype(1)),
        Out(present_v, site.dtype(2)),
        Out(scores, site.dtype()),
    )


@op("MultiHeadAttention", domain=MS)
def _multi_head_attention(site: Site) -> tuple[Out, ...]:
    query = site.shape(0)
    if len(query) == 5:  # packed [batch, sequence, heads, 3, head size]
        width = query[2] * query[4]
    elif not site.has(2):  # key and value packed as [batch, sequence, heads, 2, head size]
        width = query[2]
    else:
        value = site.shape(2)
        width = value[2] if len(value) == 3 else value[1] * value[3]
    return Out((query[0], query[1], width), site.dtype()), Out(), Out(), Out()


@op("Attention", domain=MS)
def _packed_attention(site: Site) -> tuple[Out, ...]:
    x = site.shape(0)
    sizes = site.attr("qkv_hidden_sizes")
    width = sizes[2] if sizes else site.shape(1)[1] // 3
    return Out((x[0], x[1], width), site.dtype()), Out()


@op("EmbedLayerNormalization", domain=MS)
def _embed(site: Site) -> tuple[Out, ...]:
    ids, words = site.shape(0), site.shape(2)
    shape = (ids[0], ids[1], words[1])
    return Out(shape, site.dtype(2)), Out((ids[0],), ir.DataType.INT32), Out(shape, site.dtype(2))
