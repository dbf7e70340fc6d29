"""Quantised operators as what they compute: float operators between operators that dequantise and quantise.

What onnxruntime's tools write beyond the standard operators is read here, each operator as a program of its inputs.
Nothing is lost on the way: steps that are rounded to stay in the graph, as pairs, until the rules take them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc import Editor, Log, Op, Tensor, constant
from ffc.compiler.survey import name_of
from ffc.graph.dialect import packed

__all__ = ["KERNELS", "read_kernels"]

DOMAIN = "com.microsoft"
_FLOAT = ir.DataType.FLOAT.value
_SOFTMAX_BY_AXIS = 13
"""The first opset whose Softmax goes over one axis, and not over all from there on."""


class _LeftError(Exception):
    """Why an operator is left as it is."""


def read_kernels(editor: Editor, log: Log) -> None:
    """Write every quantised operator that is known as float operators and steps; name those that stay."""
    for node in list(editor.graph):
        kernel = KERNELS.get((node.domain, node.op_type))
        if kernel is None:
            continue
        try:
            results = _computed(kernel, node, editor)
        except _LeftError as error:
            log.missed(name_of(node), str(error))
            continue
        for old, new in zip(list(node.outputs), results, strict=False):
            if old.uses() or old.is_graph_output():
                editor.replace(old, new, fresh=True)
        log.did(node.op_type)


def _computed(kernel: Callable[..., Any], node: ir.Node, editor: Editor) -> tuple[ir.Value, ...]:
    """Record what `kernel` says that `node` computes, and return the results."""
    taken = inspect.signature(kernel).parameters.values()
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken):
        unknown = next((name for name in given if name not in {each.name for each in taken}), None)
        if unknown:
            raise _LeftError(f"its attribute {unknown} is not known")
    op = editor.at(node, f"{node.outputs[0].name}.{node.op_type}")
    found = kernel(op, *node.inputs, **given)
    results = found if isinstance(found, tuple) else (found,)
    if any(value.uses() or value.is_graph_output() for value in node.outputs[len(results) :]):
        raise _LeftError("more than its first output is read")
    return results


# What the operators share


def _exact(op: Op, x: Tensor, scale: Tensor, zero: Tensor = None, axis: int | None = None) -> Tensor:
    """The numbers that rounded ones stand for; along `axis` there may be a scale for each."""
    return op.DequantizeLinear(x, scale, zero, axis=axis)


def _rounded(op: Op, x: Tensor) -> Tensor:
    """X rounded to steps that are found as the model runs."""
    rounded, scale, zero = op.DynamicQuantizeLinear(x, outputs=3)
    return _exact(op, rounded, scale, zero)


def _plus(op: Op, x: Tensor, bias: Tensor) -> Tensor:
    return x if bias is None else op.Add(x, bias)


def _array(value: Any, what: str) -> np.ndarray:
    array = constant(value)
    if array is None:
        raise _LeftError(f"its {what} is no constant")
    return array


# Products


def _matmul_integer_to_float(
    op: Op, a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, a_zero: Tensor = None, b_zero: Tensor = None,
    bias: Tensor = None,
) -> Tensor:  # fmt: skip
    return _plus(op, op.MatMul(_exact(op, a, a_scale, a_zero), _exact(op, b, b_scale, b_zero)), bias)


def _dynamic_quantize_matmul(
    op: Op, a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor = None, bias: Tensor = None
) -> Tensor:
    return _plus(op, op.MatMul(_rounded(op, a), _exact(op, b, b_scale, b_zero)), bias)


def _qlinear_matmul(
    op: Op, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor,
) -> Tensor:  # fmt: skip
    product = op.MatMul(_exact(op, a, a_scale, a_zero), _exact(op, b, b_scale, b_zero))
    return op.QuantizeLinear(product, y_scale, y_zero)


def _qgemm(
    op: Op, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor, c: Tensor = None,
    y_scale: Tensor = None, y_zero: Tensor = None, *, alpha: float = 1.0, transA: int = 0, transB: int = 0,
) -> Tensor:  # fmt: skip
    x, weight = _exact(op, a, a_scale, a_zero), _exact(op, b, b_scale, b_zero, axis=0 if transB else 1)
    if c is not None:  # its steps are those of the product
        c = op.Mul(op.Cast(c, to=_FLOAT), op.Mul(op.Mul(a_scale, b_scale), alpha))
    product = op.Gemm(x, weight, c, alpha=alpha, transA=transA, transB=transB)
    return product if y_scale is None else op.QuantizeLinear(product, y_scale, y_zero)


def _qlinear_conv(
    op: Op, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor, w_zero: Tensor, y_scale: Tensor,
    y_zero: Tensor, b: Tensor = None, **attributes: Any,
) -> Tensor:  # fmt: skip
    bias = None if b is None else op.Mul(op.Cast(b, to=_FLOAT), op.Mul(x_scale, w_scale))
    result = op.Conv(_exact(op, x, x_scale, x_zero), _exact(op, w, w_scale, w_zero, axis=0), bias, **attributes)
    return op.QuantizeLinear(result, y_scale, y_zero)


def _matmul_nbits(
    op: Op, a: Tensor, b: Tensor, scales: Tensor, zeros: Tensor = None, order: Tensor = None, bias: Tensor = None, *,
    K: int, N: int, block_size: int, bits: int = 4, accuracy_level: int = 0,
) -> Tensor:  # fmt: skip
    """`accuracy_level` says only to what activations may be rounded."""
    if order is not None:
        raise _LeftError("its blocks are out of order (g_idx)")
    stored, steps = _array(b, "weight"), _array(scales, "scales")
    offsets = None if zeros is None else _array(zeros, "zero points")
    weight = packed.blocks(stored, steps, offsets, (N, K), bits, block_size)
    return _plus(op, op.MatMul(a, np.ascontiguousarray(weight.T)), bias)


def _matmul_bnb4(
    op: Op, a: Tensor, b: Tensor, largest: Tensor, *, K: int, N: int, block_size: int, quant_type: int, transB: int = 1,
    training_mode: int = 0,
) -> Tensor:  # fmt: skip
    if not transB or quant_type not in (0, 1):
        raise _LeftError("its weight is stored in a form that is not read")
    stored, ends = _array(b, "weight"), _array(largest, "scales")
    weight = packed.of_table(stored, ends, (N, K), quant_type, block_size)
    return op.MatMul(a, np.ascontiguousarray(weight.T))


# Attention, embeddings, recurrent networks


def _qattention(
    op: Op, x: Tensor, weight: Tensor, bias: Tensor, x_scale: Tensor, w_scale: Tensor, mask: Tensor = None,
    x_zero: Tensor = None, w_zero: Tensor = None, past: Tensor = None, **attributes: Any,
) -> Any:  # fmt: skip
    if past is not None:
        raise _LeftError("it keeps a cache")
    x, weight = _exact(op, x, x_scale, x_zero), _exact(op, weight, w_scale, w_zero)
    return op.ms.Attention(x, weight, bias, mask, **attributes)


def _qembed(
    op: Op, ids: Tensor, types: Tensor, word: Tensor, position: Tensor, kinds: Tensor, gamma: Tensor, beta: Tensor,
    mask: Tensor, word_scale: Tensor, position_scale: Tensor, kinds_scale: Tensor, gamma_scale: Tensor,
    beta_scale: Tensor, word_zero: Tensor, position_zero: Tensor, kinds_zero: Tensor, gamma_zero: Tensor,
    beta_zero: Tensor, *, epsilon: float | None = None,
) -> Any:  # fmt: skip
    tables = [_exact(op, word, word_scale, word_zero), _exact(op, position, position_scale, position_zero)]
    tables.append(None if kinds is None else _exact(op, kinds, kinds_scale, kinds_zero))
    parameters = [_exact(op, gamma, gamma_scale, gamma_zero), _exact(op, beta, beta_scale, beta_zero)]
    return op.ms.EmbedLayerNormalization(ids, types, *tables, *parameters, mask, epsilon=epsilon, outputs=2)


def _gather_blocks(
    op: Op, table: Tensor, ids: Tensor, scales: Tensor, zeros: Tensor = None, *, bits: int = 4, block_size: int = 128,
    gather_axis: int = 0, quantize_axis: int = 1,
) -> Tensor:  # fmt: skip
    stored, steps = _array(table, "table"), _array(scales, "scales")
    if stored.ndim != 2 or quantize_axis not in (1, -1):
        raise _LeftError("its blocks do not lie along the rows of a table")
    sizes = (len(stored), stored.shape[1] * (8 // bits if stored.dtype == np.uint8 else 1))
    offsets = None if zeros is None else _array(zeros, "zero points")
    return op.Gather(packed.blocks(stored, steps, offsets, sizes, bits, block_size), ids, axis=gather_axis)


def _dynamic_quantize_lstm(
    op: Op, x: Tensor, w: Tensor, r: Tensor, b: Tensor, lengths: Tensor, h: Tensor, c: Tensor, peepholes: Tensor,
    w_scale: Tensor, w_zero: Tensor, r_scale: Tensor, r_zero: Tensor, **attributes: Any,
) -> Any:  # fmt: skip
    def weight(stored: Tensor, scale: Tensor, zero: Tensor) -> np.ndarray:
        array, offset = (_array(each, "weight").astype(np.float32) for each in (stored, zero))
        by_direction = (len(array), 1, -1)
        exact = (array - offset.reshape(by_direction)) * _array(scale, "scales").reshape(by_direction)
        return np.ascontiguousarray(exact.swapaxes(1, 2))

    given = [weight(w, w_scale, w_zero), weight(r, r_scale, r_zero), b, lengths, h, c, peepholes]
    return op.LSTM(_rounded(op, x), *given, outputs=3, **attributes)


# Operators on activations alone


def _between_steps(op_type: str) -> Callable[..., Tensor]:
    """An operator of two tensors, each followed by its scale and zero point, and so the result."""

    def program(
        op: Op, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor, y_scale: Tensor,
        y_zero: Tensor = None,
    ) -> Tensor:  # fmt: skip
        result = op.node(op_type, _exact(op, a, a_scale, a_zero), _exact(op, b, b_scale, b_zero))
        return op.QuantizeLinear(result, y_scale, y_zero)

    return program


def _step_to_step(op_type: str, **defaults: float) -> Callable[..., Tensor]:
    """An operator of one tensor."""

    def program(
        op: Op, x: Tensor, x_scale: Tensor, x_zero: Tensor, y_scale: Tensor, y_zero: Tensor = None, **attributes: Any
    ) -> Tensor:
        if attributes.pop("channels_last", 0):
            raise _LeftError("its channels come last")
        if attributes.pop("opset", _SOFTMAX_BY_AXIS) < _SOFTMAX_BY_AXIS and attributes.get("axis") != -1:
            raise _LeftError("it is a Softmax over several axes")
        result = op.node(op_type, _exact(op, x, x_scale, x_zero), **{**defaults, **attributes})
        return op.QuantizeLinear(result, y_scale, y_zero)

    return program


def _qlinear_where(
    op: Op, condition: Tensor, x: Tensor, x_scale: Tensor, x_zero: Tensor, y: Tensor, y_scale: Tensor, y_zero: Tensor,
    z_scale: Tensor, z_zero: Tensor,
) -> Tensor:  # fmt: skip
    result = op.Where(condition, _exact(op, x, x_scale, x_zero), _exact(op, y, y_scale, y_zero))
    return op.QuantizeLinear(result, z_scale, z_zero)


def _qlinear_concat(op: Op, y_scale: Tensor, y_zero: Tensor, *parts: Tensor, axis: int) -> Tensor:
    exact = [_exact(op, *each) for each in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
    return op.QuantizeLinear(op.Concat(*exact, axis=axis), y_scale, y_zero)


def _quantize(op: Op, x: Tensor, scale: Tensor, zero: Tensor = None, *, axis: int | None = None) -> Tensor:
    return op.QuantizeLinear(x, scale, zero, axis=axis)


def _dequantize(op: Op, x: Tensor, scale: Tensor, zero: Tensor = None, *, axis: int | None = None) -> Tensor:
    return _exact(op, x, scale, zero, axis)


def _all() -> Iterator[tuple[tuple[str, str], Callable[..., Any]]]:
    yield ("", "QLinearMatMul"), _qlinear_matmul
    yield ("", "QLinearConv"), _qlinear_conv
    of_onnxruntime: Mapping[str, Callable[..., Any]] = {
        "DequantizeLinear": _dequantize,
        "DynamicQuantizeLSTM": _dynamic_quantize_lstm,
        "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
        "GatherBlockQuantized": _gather_blocks,
        "MatMulBnb4": _matmul_bnb4,
        "MatMulIntegerToFloat": _matmul_integer_to_float,
        "MatMulNBits": _matmul_nbits,
        "QAttention": _qattention,
        "QEmbedLayerNormalization": _qembed,
        "QGemm": _qgemm,
        "QLinearAdd": _between_steps("Add"),
        "QLinearConcat": _qlinear_concat,
        "QLinearGlobalAveragePool": _step_to_step("GlobalAveragePool"),
        "QLinearLeakyRelu": _step_to_step("LeakyRelu"),
        "QLinearMul": _between_steps("Mul"),
        "QLinearSigmoid": _step_to_step("Sigmoid"),
        "QLinearSoftmax": _step_to_step("Softmax"),
        "QLinearWhere": _qlinear_where,
        "QuantizeLinear": _quantize,
    }
    for name, kernel in of_onnxruntime.items():
        yield (DOMAIN, name), kernel


KERNELS = dict(_all())
"""By domain and name of an operator, what it computes."""
