"""Every quantised operator becomes the float operators that it stands for: on numbers that lie on its steps, they are equal.

A result that is rounded itself may move by half a step of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.graph.blocks.prequantised import rounded_nodes
from tests.graphs import Draft, count, difference, run_passes, run_stock
from tests.kernels import needs_quantize_linear

FLOAT, INT32, INT64 = ir.DataType.FLOAT.value, ir.DataType.INT32.value, ir.DataType.INT64

STEP, ZERO = np.float32(0.5), np.uint8(7)
"""Of activations whose steps are known before."""

Y_STEP, Y_ZERO = np.float32(0.125), np.uint8(128)
"""Of results: what products below come to lies on these steps, and within their range."""

MATRIX, MATRICES, IMAGE = (3, 8), (2, 3, 8), (1, 2, 5, 5)


@dataclass(frozen=True)
class Case:
    """One operator in a graph.

    Attributes:
        build: Records it; takes a draft, x float32 and x rounded to steps, and returns a float value.
        shape: The shape of x.
        wide: Whether x is drawn so that steps found as the model runs are `STEP` and `ZERO`, and not for a small result.
        tolerance: How far results may move, relative to their scale.
        axes: How many axes the result has, where it is not as many as x.
    """

    build: Callable[..., Any]
    shape: tuple[int, ...] = MATRICES
    wide: bool = False
    tolerance: float = 1e-5
    axes: int = 0


def weight(draft: Draft, *shape: int, dtype: Any = np.int8, zero: int = 0, most: int = 2, name: str = "w") -> ir.Value:
    return draft.weight(name, (draft.random.integers(-most, most + 1, shape) + zero).astype(dtype))


def scales(draft: Draft, count: int) -> np.ndarray:
    return draft.random.choice([0.25, 0.125, 0.5], count).astype(np.float32)


def back(draft: Draft, y: Any, step: float = Y_STEP, zero: Any = Y_ZERO) -> Any:
    return draft.op.DequantizeLinear(y, np.float32(step), zero)


def of_x(x: Any) -> tuple[Any, np.float32, np.uint8]:
    return x, STEP, ZERO


def dynamic(draft: Draft, x: Any) -> Any:
    return draft.op.DynamicQuantizeLinear(x, outputs=3)


# Products of integers that the graph scales back


def integers(order: str, *, columns: bool = False, zero: Any = None, dtype: Any = np.int8) -> Callable[..., Any]:
    def build(draft: Draft, x: Any, _: Any) -> Any:
        op = draft.op
        rounded, step, x_zero = dynamic(draft, x)
        stored = weight(draft, 8, 5, dtype=dtype, zero=0 if zero is None else int(np.max(zero)))
        scale = scales(draft, 5) if columns else np.float32(0.25)
        sums = op.Cast(op.MatMulInteger(rounded, stored, x_zero, *([] if zero is None else [zero])), to=FLOAT)
        if order == "together":
            return op.Mul(sums, op.Mul(step, scale))
        if order == "scale first":
            return op.Mul(op.Mul(step, sums), scale)
        return op.Mul(step, op.Mul(scale, sums))

    return build


def of_two_activations(draft: Draft, x: Any, _: Any) -> Any:
    one, other = dynamic(draft, x), dynamic(draft, draft.op.Transpose(x, perm=[0, 2, 1]))
    sums = draft.op.MatMulInteger(one[0], other[0], one[2], other[2])
    return draft.op.Mul(draft.op.Cast(sums, to=FLOAT), draft.op.Mul(one[1], other[1]))


def moved_before(draft: Draft, x: Any, _: Any) -> Any:
    rounded, step, zero = dynamic(draft, x)
    flat = draft.op.Reshape(rounded, [-1, 8])
    sums = draft.op.MatMulInteger(flat, weight(draft, 8, 5), zero)
    return draft.op.Mul(draft.op.Cast(sums, to=FLOAT), draft.op.Mul(step, np.float32(0.5)))


def conv_integer(draft: Draft, x: Any, _: Any) -> Any:
    rounded, step, zero = dynamic(draft, x)
    sums = draft.op.ConvInteger(rounded, weight(draft, 3, 2, 3, 3), zero, np.int8(0), pads=[1, 1, 1, 1], strides=[2, 2])
    scale = scales(draft, 3).reshape(1, 3, 1, 1)
    return draft.op.Mul(draft.op.Cast(sums, to=FLOAT), draft.op.Mul(step, scale))


# Products in one operator


def integer_to_float(draft: Draft, _: Any, x: Any) -> Any:
    stored, bias = weight(draft, 8, 5, dtype=np.uint8, zero=9), draft.normal("b", 5)
    return draft.op.ms.MatMulIntegerToFloat(x, stored, STEP, scales(draft, 5), ZERO, np.full(5, 9, np.uint8), bias)


def integer_to_float_plain(draft: Draft, _: Any, x: Any) -> Any:
    return draft.op.ms.MatMulIntegerToFloat(x, weight(draft, 8, 5), STEP, np.float32(0.25), ZERO)


def dynamic_matmul(draft: Draft, x: Any, _: Any) -> Any:
    return draft.op.ms.DynamicQuantizeMatMul(x, weight(draft, 8, 5), scales(draft, 5), None, draft.normal("b", 5))


def qlinear_matmul(draft: Draft, _: Any, x: Any) -> Any:
    given = [*of_x(x), weight(draft, 8, 5), np.full(5, 0.25, np.float32), np.zeros(5, np.int8)]
    return back(draft, draft.op.QLinearMatMul(*given, Y_STEP, Y_ZERO))


def qgemm(draft: Draft, _: Any, x: Any) -> Any:
    given = [*of_x(x), weight(draft, 5, 8), scales(draft, 5), np.zeros(5, np.int8), weight(draft, 5, dtype=np.int32, name="c")]
    return draft.op.ms.QGemm(*given, alpha=1.0, transB=1)


def qgemm_rounded(draft: Draft, _: Any, x: Any) -> Any:
    given = [*of_x(x), weight(draft, 8, 5), np.float32(0.25), np.int8(0), None, Y_STEP, Y_ZERO]
    return back(draft, draft.op.ms.QGemm(*given))


def qlinear_conv(draft: Draft, _: Any, x: Any) -> Any:
    given = [*of_x(x), weight(draft, 3, 2, 3, 3, most=1), np.full(3, 0.25, np.float32), np.zeros(3, np.int8)]
    bias = weight(draft, 3, dtype=np.int32, name="c")
    return back(draft, draft.op.QLinearConv(*given, Y_STEP, Y_ZERO, bias, pads=[1, 1, 1, 1]))


# Weights of a few bits


def nbits(bits: int, *, zeros: str = "", width: int = 40) -> Callable[..., Any]:
    def build(draft: Draft, x: Any, _: Any) -> Any:
        blocks, size = -(-width // 16), 16 * bits // 8
        stored = draft.weight("w", draft.random.integers(0, 256, (5, blocks, size), np.uint8))
        steps = draft.random.uniform(0.1, 1, 5 * blocks).astype(np.float32)
        offsets = {
            "": None,
            "packed": draft.random.integers(0, 256, 5 * -(-blocks * bits // 8), np.uint8),
            "float": draft.random.uniform(0, 15, (5, blocks)).astype(np.float32),
        }[zeros]
        attributes = {"K": width, "N": 5, "bits": bits, "block_size": 16}
        return draft.op.ms.MatMulNBits(x, stored, steps, offsets, None, draft.normal("b", 5), **attributes)

    return build


def bnb4(kind: int) -> Callable[..., Any]:
    def build(draft: Draft, x: Any, _: Any) -> Any:
        stored = draft.weight("w", draft.random.integers(0, 256, 5 * 40 // 2, np.uint8))
        largest = draft.random.uniform(0.1, 1, -(-5 * 40 // 16)).astype(np.float32)
        return draft.op.ms.MatMulBnb4(x, stored, largest, K=40, N=5, block_size=16, quant_type=kind)

    return build


def gather_blocks(draft: Draft, x: Any, _: Any) -> Any:
    table = draft.weight("table", draft.random.integers(0, 256, (6, 32), np.uint8))
    ids = draft.op.Cast(draft.op.Clip(x, np.float32(0), np.float32(5)), to=INT64.value)
    steps = draft.random.uniform(0.1, 1, (6, 4)).astype(np.float32)
    return draft.op.ms.GatherBlockQuantized(table, ids, steps, bits=4, block_size=16, gather_axis=0, quantize_axis=1)


# Attention, embeddings, recurrent networks


def qattention(draft: Draft, _: Any, x: Any) -> Any:
    given = [x, weight(draft, 8, 24), draft.normal("b", 24), STEP, np.float32(0.0625), np.array([3, 2], np.int32), ZERO, np.int8(0)]
    return draft.op.ms.QAttention(*given, num_heads=2)


def qembed(draft: Draft, x: Any, _: Any) -> Any:
    op = draft.op
    ids = op.Cast(op.Clip(op.Squeeze(op.Slice(x, [0], [1], [2]), [2]), np.float32(0), np.float32(5)), to=INT32)
    tables = {name: draft.weight(name, draft.random.integers(0, 255, (6, 8), np.uint8)) for name in ("word", "position", "kind")}
    gamma, beta = (draft.weight(name, draft.random.integers(0, 255, 8, np.uint8)) for name in ("gamma", "beta"))
    steps, zeros = [np.float32(0.01 * place) for place in range(1, 6)], [np.uint8(120 + place) for place in range(5)]
    kinds = op.Cast(op.Greater(ids, np.int32(2)), to=INT32)
    return op.ms.QEmbedLayerNormalization(ids, kinds, *tables.values(), gamma, beta, None, *steps, *zeros, outputs=2)[0]


def lstm(draft: Draft, x: Any, _: Any) -> Any:
    w, r = weight(draft, 2, 8, 16, most=5), weight(draft, 2, 4, 16, most=5, name="r")
    steps, zeros = np.array([0.02, 0.03], np.float32), np.zeros(2, np.int8)
    given = [x, w, r, draft.normal("b", 2, 32), None, None, None, None, steps, zeros, steps, zeros]
    return draft.op.ms.DynamicQuantizeLSTM(*given, hidden_size=4, direction="bidirectional", outputs=3)[0]


# Activations alone


def of_two(name: str, step: float) -> Callable[..., Any]:
    def build(draft: Draft, _: Any, x: Any) -> Any:
        other = weight(draft, 8, dtype=np.uint8, zero=5, name="other"), np.float32(0.25), np.uint8(5)
        return back(draft, getattr(draft.op.ms, name)(*of_x(x), *other, np.float32(step), Y_ZERO), step)

    return build


def of_one(name: str, step: float, zero: int = 128, **attributes: Any) -> Callable[..., Any]:
    def build(draft: Draft, _: Any, x: Any) -> Any:
        given = [*of_x(x), np.float32(step), np.uint8(zero)]
        return back(draft, getattr(draft.op.ms, name)(*given, **attributes), step, np.uint8(zero))

    return build


def where(draft: Draft, x: Any, rounded: Any) -> Any:
    chosen = draft.op.Greater(x, np.float32(0))
    other = weight(draft, 8, dtype=np.uint8, zero=5), np.float32(0.25), np.uint8(5)
    return back(draft, draft.op.ms.QLinearWhere(chosen, *of_x(rounded), *other, Y_STEP, Y_ZERO))


def concat(draft: Draft, _: Any, x: Any) -> Any:
    other = weight(draft, 2, 3, 4, dtype=np.uint8, zero=5), np.float32(0.25), np.uint8(5)
    return back(draft, draft.op.ms.QLinearConcat(Y_STEP, Y_ZERO, *of_x(x), *other, axis=2))


def pair_of_onnxruntime(draft: Draft, x: Any, _: Any) -> Any:
    return draft.op.ms.DequantizeLinear(draft.op.ms.QuantizeLinear(x, STEP, ZERO), STEP, ZERO)


def looked_up(draft: Draft, x: Any, _: Any) -> Any:
    table = draft.weight("table", draft.random.integers(0, 256, (6, 4), np.uint8))
    ids = draft.op.Cast(draft.op.Clip(x, np.float32(0), np.float32(5)), to=INT64.value)
    return draft.op.DequantizeLinear(draft.op.Gather(table, ids), np.float32(0.3), np.uint8(99))


def split_and_turned(draft: Draft, _: Any, x: Any) -> Any:
    one, other = draft.op.Split(x, outputs=2, axis=2, num_outputs=2)
    return draft.op.MatMul(back(draft, one, STEP, ZERO), back(draft, draft.op.Transpose(other, perm=[0, 2, 1]), STEP, ZERO))


def weight_by_column(draft: Draft, x: Any, _: Any) -> Any:
    exact = draft.op.DequantizeLinear(weight(draft, 5, 8), scales(draft, 5), np.zeros(5, np.int8), axis=0)
    return draft.op.MatMul(x, draft.op.Transpose(exact))


def weight_by_block(draft: Draft, x: Any, _: Any) -> Any:
    steps = draft.random.uniform(0.1, 1, (2, 5)).astype(np.float32)
    return draft.op.MatMul(x, draft.op.DequantizeLinear(weight(draft, 8, 5), steps, axis=0, block_size=4))


def weight_rounded_in_the_graph(draft: Draft, x: Any, _: Any) -> Any:
    rounded = draft.op.QuantizeLinear(draft.normal("w", 8, 5), np.float32(0.1), np.int8(0))
    return draft.op.MatMul(x, draft.op.DequantizeLinear(rounded, np.float32(0.1), np.int8(0)))


CASES = {
    "MatMulInteger": Case(integers("together"), wide=True),
    "MatMulInteger, scale first": Case(integers("scale first", columns=True), wide=True),
    "MatMulInteger, scale last": Case(integers("scale last", columns=True), wide=True),
    "MatMulInteger, uint8": Case(integers("together", zero=np.uint8(99), dtype=np.uint8), wide=True),
    "MatMulInteger, zeros": Case(integers("together", columns=True, zero=np.full(5, 3, np.int8)), wide=True),
    "MatMulInteger, activations": Case(of_two_activations, wide=True),
    "MatMulInteger, moved": Case(moved_before, wide=True, axes=2),
    "ConvInteger": Case(conv_integer, IMAGE, wide=True),
    "MatMulIntegerToFloat": Case(integer_to_float),
    "MatMulIntegerToFloat, plain": Case(integer_to_float_plain),
    "DynamicQuantizeMatMul": Case(dynamic_matmul, wide=True),
    "QLinearMatMul": Case(qlinear_matmul),
    "QLinearConv": Case(qlinear_conv, IMAGE),
    "QGemm": Case(qgemm, MATRIX),
    "QGemm, rounded": Case(qgemm_rounded, MATRIX),
    "MatMulNBits": Case(nbits(4), (2, 3, 40)),
    "MatMulNBits, whole blocks": Case(nbits(4, width=32), (2, 3, 32)),
    "MatMulNBits, zeros": Case(nbits(4, zeros="packed"), (2, 3, 40)),
    "MatMulNBits, float zeros": Case(nbits(4, zeros="float"), (2, 3, 40)),
    "MatMulNBits, 8 bits": Case(nbits(8, zeros="packed"), (2, 3, 40)),
    "MatMulBnb4, FP4": Case(bnb4(0), (2, 3, 40)),
    "MatMulBnb4, NF4": Case(bnb4(1), (2, 3, 40)),
    "GatherBlockQuantized": Case(gather_blocks, MATRIX, axes=3),
    "QAttention": Case(qattention),
    "QEmbedLayerNormalization": Case(qembed),
    "DynamicQuantizeLSTM": Case(lstm, wide=True, tolerance=0.02, axes=4),
    "QLinearAdd": Case(of_two("QLinearAdd", 0.25)),
    "QLinearMul": Case(of_two("QLinearMul", 0.125)),
    "QLinearSigmoid": Case(of_one("QLinearSigmoid", 1 / 256, 0), tolerance=0.01),
    "QLinearLeakyRelu": Case(of_one("QLinearLeakyRelu", 0.05), tolerance=0.01),
    "QLinearSoftmax": Case(of_one("QLinearSoftmax", 1 / 256, 0, axis=-1, opset=13), tolerance=0.01),
    "QLinearGlobalAveragePool": Case(of_one("QLinearGlobalAveragePool", 0.02), IMAGE, tolerance=0.05),
    "QLinearWhere": Case(where),
    "QLinearConcat": Case(concat),
    "DequantizeLinear": Case(pair_of_onnxruntime),
    "Gather": Case(looked_up, MATRIX, axes=3),
    "Split": Case(split_and_turned),
    "weight by column": Case(weight_by_column),
    "weight by block": Case(weight_by_block),
    "weight rounded in the graph": Case(weight_rounded_in_the_graph, tolerance=0.01),
}


def drafted(case: Case, seed: int = 0) -> ir.Model:
    draft = Draft(seed)
    x = draft.input("x", *case.shape)
    y: Any = case.build(draft, x, draft.op.QuantizeLinear(x, STEP, ZERO))
    model = draft.model({"y": (y, [f"size{axis}" for axis in range(case.axes or len(case.shape))])})
    model.opset_imports["com.microsoft"] = 1
    return model


def drawn(case: Case) -> Iterator[np.ndarray]:
    for seed in range(3):
        numbers = np.random.default_rng(seed).integers(0, 256 if case.wide else 15, case.shape)
        numbers.flat[:2] = (0, 255) if case.wide else (0, 14)
        yield ((numbers - int(ZERO)) * STEP).astype(np.float32)


@needs_quantize_linear
@pytest.mark.parametrize("name", CASES)
def test_operator_becomes_what_it_stands_for(name: str) -> None:
    case = CASES[name]
    model = drafted(case)
    result = run_passes(model, "dequantize")
    assert not list(rounded_nodes(result)), [node.op_type for node in result.graph]
    for x in drawn(case):
        assert difference(run_stock(model, {"x": x}), run_stock(result, {"x": x})) < case.tolerance


@needs_quantize_linear
def test_a_relu_that_a_tool_dropped_comes_back() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 8)
    rounded = draft.op.QuantizeLinear(draft.op.MatMul(x, draft.normal("w", 8, 5)), np.float32(0.01), np.uint8(0))
    model = draft.model({"y": (draft.op.DequantizeLinear(rounded, np.float32(0.01), np.uint8(0)), ["batch", 5])})
    result = run_passes(model, "dequantize")
    assert count(result, "Relu") == 1
    inputs = {"x": np.random.default_rng(0).uniform(-1, 1, (4, 8)).astype(np.float32)}
    assert difference(run_stock(model, inputs), run_stock(result, inputs)) < 0.01


@pytest.mark.parametrize("before", ["Softmax", "Sigmoid", "Relu"])
def test_what_is_never_negative_needs_no_relu(before: str) -> None:
    draft = Draft()
    x = draft.input("x", "batch", 8)
    value = draft.op.Unsqueeze(getattr(draft.op, before)(x), [0])
    pair = draft.op.DequantizeLinear(draft.op.QuantizeLinear(value, np.float32(0.01), np.uint8(0)), np.float32(0.01), np.uint8(0))
    assert count(run_passes(draft.model({"y": (pair, [1, "batch", 8])}), "dequantize"), "Relu") == (before == "Relu")


# Old opsets


OLD = """<ir_version: 7, opset_import: ["" : OPSET]>
old (float[batch, 4] x) => (float[batch, 3] y)
<uint8[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2}, float s = {0.5}, uint8 z = {7}, float w_s = {0.25}, uint8 w_z = {5},
 float y_s = {0.125}, uint8 y_z = {128}>
{
    q = QuantizeLinear(x, s, z)
    p = QLinearMatMul(q, s, z, w, w_s, w_z, y_s, y_z)
    y = DequantizeLinear(p, y_s, y_z)
}"""


@needs_quantize_linear
@pytest.mark.parametrize("opset", [10, 13, 21])
def test_operators_of_old_opsets_are_read(opset: int) -> None:
    model = ir.from_onnx_text(OLD.replace("OPSET", str(opset)))
    result = ffc.compile(model, "dequantize,int8{range=full}")
    assert [step.changes for step in result.report.steps if step.text.startswith("int8")] == [{"other": 1}]
    x = np.array([[1, 2, -3.5, 0.5], [0, 0, 3.5, -1]], np.float32)
    assert difference(run_stock(model, {"x": x}), run_stock(result.model, {"x": x})) < 0.02
