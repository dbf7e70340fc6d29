"""The cost of small graphs equals what one counts by hand, in functions and fused operators too."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ffc.graph.cost import Cost, cost, products

WEIGHTS = f"float[24, 10] w = {{{', '.join(['0.5'] * 240)}}}, int64[2] shape = {{1, 2}}, float scale = {{1.0}}"


def build(body: str, functions: str = "", inputs: str = "float[batch, seq, 24] x") -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1, "ffc": 1]>
    g ({inputs}) => (float[1] unused) <{WEIGHTS}> {{ {body} }} {functions}"""
    proto = onnx.parser.parse_model(text)
    del proto.graph.output[:]
    return ir.from_proto(proto)


def test_a_linear_layer_is_counted_by_hand() -> None:
    found = cost(build("a = MatMul(x, w) y = Relu(a)"), batch=2, length=5)
    assert found == Cost(nodes=2, parameters=240, bytes=240 * 4 + 2 * 8 + 4, macs=2 * 5 * 24 * 10, macs_unknown=0)


@pytest.mark.parametrize(
    ("body", "macs"),
    [
        ("t = Transpose<perm=[0, 2, 1]>(x) y = MatMul(x, t)", 2 * 5 * 5 * 24),
        ("y = com.microsoft.FusedMatMul<transB=1>(x, x)", 2 * 5 * 5 * 24),
        ("y = com.microsoft.FusedMatMul<transA=1>(x, x)", 2 * 24 * 24 * 5),
        ("y = Gemm<transA=1>(w, w)", 10 * 10 * 24),
        ("y = Gemm<transB=1>(w, w)", 24 * 24 * 10),
        ("y = Attention<q_num_heads=4, kv_num_heads=4>(x, x, x)", 2 * 5 * 5 * (24 + 24)),
        ("y = com.microsoft.MultiHeadAttention<num_heads=4>(x, x, x)", 2 * 5 * 5 * (24 + 24)),
        ("k = Constant<value_ints=[24, 72]>() v = ConstantOfShape(k) y = com.microsoft.Attention<num_heads=4>(x, v)",
         2 * 5 * 24 * 72 + 2 * 5 * 5 * (24 + 24)),
        ("q, s, z = DynamicQuantizeLinear(x) r, t, u = DynamicQuantizeLinear(w) y = MatMulInteger(q, r, z, u)",
         2 * 5 * 24 * 10),
        ("y = com.microsoft.DynamicQuantizeMatMul(x, w, scale)", 2 * 5 * 24 * 10),
        ('y = Einsum<equation="bid,bjd->bij">(x, x)', 2 * 5 * 5 * 24),
        ("y = Add(x, x)", 0),
    ],
)  # fmt: skip
def test_every_form_of_product_is_counted(body: str, macs: int) -> None:
    found = cost(build(body), batch=2, length=5)
    assert (found.macs, found.macs_unknown) == (macs, 0)


def test_attention_by_operator_costs_what_its_products_cost() -> None:
    split = build("y = Attention(h, h, h)", inputs="float[batch, 4, seq, 6] h")
    # Here the length is on axis 2, so that nothing says how large it is.
    assert cost(split).macs_unknown == 1
    by_hand = "t = Transpose<perm=[0, 1, 3, 2]>(h) s = MatMul(h, t) p = Softmax(s) y = MatMul(p, h)"
    inputs = "float[batch, 4, seq, 6] h, int64[batch, seq] ids"
    fused = cost(build("y = Attention(h, h, h)", inputs=inputs), 3, 7)
    assert fused.macs == cost(build(by_hand, inputs=inputs), 3, 7).macs == 2 * 3 * 4 * 7 * 7 * 6


FUNCTION = """
<domain: "ffc", opset_import: ["": 23]> Pair (x, w) => (y) {
  a = MatMul(x, w) t = Transpose<perm=[0, 2, 1]>(a) y = MatMul(a, t)
}"""


def test_products_in_functions_are_listed_under_their_call() -> None:
    model = build("a = Relu(x) y = ffc.Pair(a, w) z = ffc.Pair(x, w)", FUNCTION)
    calls = list(model.graph)[1:]
    expected = [2 * 5 * 24 * 10, 2 * 5 * 5 * 10]
    assert products(model, 2, 5) == [(call, macs) for call in calls for macs in expected]


def test_what_cannot_be_counted_is_said() -> None:
    body = "n = NonZero(x) f = Cast<to=1>(n) t = Transpose(f) y = MatMul(t, f) z = Conv(x, v)"
    assert cost(build(body, inputs="float[batch, seq, 24] x, float[5, seq, 1] v")).macs_unknown == 2


def test_a_shared_tensor_is_counted_once_and_scalars_are_no_parameters() -> None:
    model = build("y = MatMul(x, w) z = MatMul(x, w2)")
    tensor = model.graph.initializers["w"].const_value
    twin = next(value for node in model.graph for value in node.inputs if value is not None and value.name == "w2")
    twin.const_value = tensor
    model.graph.register_initializer(twin)
    assert cost(model).parameters == 240
    twin.const_value = ir.tensor(np.zeros((24, 10), np.int8), name="w2")
    assert cost(model).parameters == 480
    assert cost(model).bytes == 240 * 4 + 240 + 2 * 8 + 4
