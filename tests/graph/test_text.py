"""The canonical text of a model: what it says, what it ignores, and what changes it."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from ffc.graph.text import text

ENCODER = """
<ir_version: 10, opset_import: ["" : 20, "ffc" : 1]>
encoder (float[batch, seq, 4] x, float[batch, seq, 4] mask) => (float[batch, seq, 4] y, float[batch, seq, 4] scores)
<float[4] b = {1, 2, 3, 4}, float[1] eps = {0.5}> {
    q = ffc.Linear(x, wq, b)
    k = MatMul(x, wk)
    s = Mul(q, k)
    m = Add(s, mask)
    scores = Softmax<axis: int = -1>(m)
    h = Add(scores, x)
    n = LayerNormalization<axis: int = -1, epsilon: float = 1e-12>(h, b)
    f = MatMul(n, wk)
    g = Gelu<approximate: string = "tanh">(f)
    y = Add(g, n)
}
<domain: "ffc", opset_import: ["" : 20]>
Linear (x, w, b) => (y) {
    product = MatMul(x, w)
    y = Add(product, b)
}
"""

TEXT = """\
ffc.text/1
opset ai.onnx 20
opset ffc 1
input %x: f32[batch,seq,4]
input %mask: f32[batch,seq,4]

%linear1 = ffc.Linear(%x, f32[4,4]#HASH_Q, f32[4]{1.0, 2.0, 3.0, 4.0})
%matmul1 = MatMul(%x, f32[4,4]#HASH_K)
%mul1 = Mul(%linear1, %matmul1)
%add1 = Add(%mul1, %mask)
%softmax1 = Softmax(%add1; axis=-1)
%add2 = Add(%softmax1, %x)
%layernorm1 = LayerNormalization(%add2, f32[4]{1.0, 2.0, 3.0, 4.0}; axis=-1, epsilon=1e-12)

%1.matmul1 = MatMul(%layernorm1, f32[4,4]#HASH_K)
%1.gelu1 = Gelu(%1.matmul1; approximate="tanh")
%1.add1 = Add(%1.gelu1, %layernorm1)

output %y: f32[batch,seq,4] = %1.add1
output %scores: f32[batch,seq,4] = %softmax1
unused f32[1]{0.5}

function ffc.Linear(x, w, b) {
  opset ai.onnx 20
  %matmul1 = MatMul(%x, %w)
  %add1 = Add(%matmul1, %b)
  return %add1
}
"""

BRANCHES = """
<ir_version: 10, opset_import: ["" : 20]>
branches (bool c, float[4] x) => (float[4] y) {
    r = Relu(x)
    y = If(c) <
        then_branch = then () => (float[4] t) { p = Abs(x)  t = Add(p, r) },
        else_branch = other () => (float[4] e) { e = Neg(x) }
    >
}
"""


def encoder() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(ENCODER)
    rng = np.random.default_rng(0)
    for name in ("wq", "wk"):
        weight = rng.standard_normal((4, 4)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weight, name))
    return proto


def text_of(proto: onnx.ModelProto, *, weights: bool = True) -> str:
    return text(ir.from_proto(copy.deepcopy(proto)), weights=weights)


def renamed(proto: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """Return a copy with fresh names for all but inputs, outputs and the function's parameters."""
    proto = copy.deepcopy(proto)
    for index, node in enumerate(proto.graph.node):
        node.name = f"node_{rng.random()}_{index}"
    kept = {value.name for value in [*proto.graph.input, *proto.graph.output]}
    inner = {name for node in proto.graph.node for name in node.output} | {
        tensor.name for tensor in proto.graph.initializer
    }
    fresh = {name: f"v{rng.random()}" for name in sorted(inner - kept)}
    for tensor in proto.graph.initializer:
        tensor.name = fresh[tensor.name]
    for node in proto.graph.node:
        node.input[:] = [fresh.get(name, name) for name in node.input]
        node.output[:] = [fresh.get(name, name) for name in node.output]
    proto.functions[0].node[0].output[0] = proto.functions[0].node[1].input[0] = f"v{rng.random()}"
    return proto


def shuffled(proto: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """Return a copy with initializers and, as far as topology allows, nodes in random order."""
    proto = copy.deepcopy(proto)
    weights, nodes = list(proto.graph.initializer), list(proto.graph.node)
    rng.shuffle(weights)
    ready = {value.name for value in proto.graph.input} | {tensor.name for tensor in weights}
    order = []
    while nodes:
        node = rng.choice([node for node in nodes if set(node.input) <= ready | {""}])
        nodes.remove(node)
        ready.update(node.output)
        order.append(node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend(weights)
    proto.graph.node.extend(order)
    return proto


def test_reads_as_documented() -> None:
    lines = text_of(encoder())
    hashes = [part[:8] for part in lines.split("f32[4,4]#")[1:]]
    assert hashes[1] == hashes[2] != hashes[0]
    assert lines == TEXT.replace("HASH_Q", hashes[0]).replace("HASH_K", hashes[1])


def test_hash_is_the_sha256_of_type_shape_and_bytes() -> None:
    weight = numpy_helper.to_array(encoder().graph.initializer[-1])
    expected = hashlib.sha256(b"f32[4,4]" + weight.tobytes()).hexdigest()[:8]
    assert f"%matmul1 = MatMul(%x, f32[4,4]#{expected})" in text_of(encoder())


@pytest.mark.parametrize("seed", range(20))
def test_ignores_names_and_order(seed: int) -> None:
    rng = random.Random(seed)
    other = shuffled(renamed(encoder(), rng), rng)
    assert other.SerializeToString() != encoder().SerializeToString()
    assert text_of(other) == text_of(encoder())


def test_ignores_order_that_is_not_topological() -> None:
    proto = encoder()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert text_of(proto) == text_of(encoder())


def test_ignores_metadata_and_inferred_types() -> None:
    proto = onnx.shape_inference.infer_shapes(encoder())
    proto.producer_name, proto.doc_string, proto.graph.name = "someone", "something", "another"
    proto.graph.node[0].doc_string = "a node"
    onnx.helper.set_model_props(proto, {"key": "value"})
    assert text_of(proto) == text_of(encoder())


def change_weight(proto: onnx.ModelProto) -> None:
    weight = numpy_helper.to_array(proto.graph.initializer[-1]).copy()
    weight[3, 3] = np.nextafter(weight[3, 3], np.float32(9))
    proto.graph.initializer[-1].raw_data = weight.tobytes()


def change_weight_shape(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[-1].dims[:] = [2, 8]


def change_weight_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[-1].data_type = onnx.TensorProto.INT32


def change_small_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].float_data[0] = 1.5


def change_attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[6].attribute[1].f = 1e-6


def change_attribute_type(proto: onnx.ModelProto) -> None:
    proto.graph.node[4].attribute[0].CopyFrom(onnx.helper.make_attribute("axis", -1.0))


def change_edge(proto: onnx.ModelProto) -> None:
    proto.graph.node[5].input[1] = "mask"


def swap_operands(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].input[:] = ["k", "q"]


def change_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].op_type = "Div"


def change_domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].domain = "com.microsoft"


def change_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[1].name = "m"


def change_input_type(proto: onnx.ModelProto) -> None:
    proto.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def change_dimension(proto: onnx.ModelProto) -> None:
    proto.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "length"


def change_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 21


def change_function_body(proto: onnx.ModelProto) -> None:
    proto.functions[0].node[1].op_type = "Sub"


def change_function_opset(proto: onnx.ModelProto) -> None:
    proto.functions[0].opset_import[0].version = 21


def omit_operand(proto: onnx.ModelProto) -> None:
    proto.graph.node[6].input[:] = ["h", "", "b"]


CHANGES = [value for name, value in list(globals().items()) if name.startswith(("change_", "swap_", "omit_"))]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_shows_every_change(change: Callable[[onnx.ModelProto], None]) -> None:
    proto = encoder()
    change(proto)
    assert text_of(proto) != text_of(encoder())


def test_no_two_changes_look_alike() -> None:
    texts = set()
    for change in CHANGES:
        proto = encoder()
        change(proto)
        texts.add(text_of(proto))
    assert len(texts) == len(CHANGES)


def test_without_weights_only_structure_counts() -> None:
    proto = encoder()
    change_weight(proto)
    assert text_of(proto, weights=False) == text_of(encoder(), weights=False)
    assert "MatMul(%x, f32[4,4])" in text_of(proto, weights=False)
    change_weight_shape(proto)
    assert text_of(proto, weights=False) != text_of(encoder(), weights=False)


def test_an_inserted_node_leaves_other_sections_alone() -> None:
    proto = encoder()
    proto.graph.node[3].input[0] = "t"
    proto.graph.node.insert(3, onnx.helper.make_node("Add", ["s", "b"], ["t"]))
    before, after = text_of(encoder()).splitlines(), text_of(proto).splitlines()
    assert [line for line in before if line not in after] == [
        "%add1 = Add(%mul1, %mask)",
        "%softmax1 = Softmax(%add1; axis=-1)",
        "%add2 = Add(%softmax1, %x)",
        "%layernorm1 = LayerNormalization(%add2, f32[4]{1.0, 2.0, 3.0, 4.0}; axis=-1, epsilon=1e-12)",
    ]


def test_nodes_that_no_output_needs_are_listed_by_operator() -> None:
    proto = encoder()
    proto.graph.node.extend([onnx.helper.make_node("Tanh", ["x"], ["d1"]), onnx.helper.make_node("Abs", ["x"], ["d2"])])
    assert "unused Abs\nunused Tanh\nunused f32[1]{0.5}\n" in text_of(proto)


def test_subgraphs_are_indented_and_what_they_capture_comes_first() -> None:
    assert text(ir.from_proto(onnx.parser.parse_model(BRANCHES))).splitlines()[5:] == [
        "%relu1 = Relu(%x)",
        "%if1 = If(%c)",
        "  else_branch() {",
        "    %if1/neg1 = Neg(%x)",
        "    return %if1/neg1",
        "  }",
        "  then_branch() {",
        "    %if1/abs1 = Abs(%x)",
        "    %if1/add1 = Add(%if1/abs1, %relu1)",
        "    return %if1/add1",
        "  }",
        "",
        "output %y: f32[4] = %if1",
    ]


def test_names_inside_subgraphs_do_not_matter() -> None:
    other = BRANCHES.replace("p = Abs", "zz = Abs").replace("Add(p", "Add(zz").replace("r)", "rr)")
    other = other.replace("r = Relu", "rr = Relu")
    assert other != BRANCHES
    assert text(ir.from_proto(onnx.parser.parse_model(other))) == text(ir.from_proto(onnx.parser.parse_model(BRANCHES)))


def test_several_outputs_are_numbered_and_unused_ones_are_blank() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[6] x) => (float[2] y) {'
        " a, b, c = Split<axis: int = 0, num_outputs: int = 3>(x)  y = Add(c, a) }"
    )
    lines = text_of(proto).splitlines()
    assert "%split1:0, _, %split1:2 = Split(%x; axis=0, num_outputs=3)" in lines
    assert "%add1 = Add(%split1:2, %split1:0)" in lines


def test_a_function_shows_its_attributes_and_where_they_go() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "ffc" : 1]> g (float[6] x) => (float[6] y) '
        "{ y = ffc.Leak<alpha: float = 0.25>(x) }"
        '<domain: "ffc", opset_import: ["" : 20]> Leak <alpha> (x) => (y) { y = LeakyRelu<alpha: float = @alpha>(x) }'
    )
    assert "%leak1 = ffc.Leak(%x; alpha=0.25)" in text_of(proto)
    assert "function ffc.Leak(x; alpha) {\n" in text_of(proto)
    assert "  %leakyrelu1 = LeakyRelu(%x; alpha=@alpha)\n" in text_of(proto)


def test_a_label_never_equals_the_name_of_an_input() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[6] add1, float[6] z) => (float[6] y) { y = Add(add1, z) }'
    )
    assert "%add2 = Add(%add1, %z)" in text_of(proto)


@pytest.mark.parametrize(
    ("array", "label"),
    [
        (np.array(0.125, np.float32), "f32{0.125}"),
        (np.array([1, -1], np.int64), "i64[2]{1, -1}"),
        (np.array([True, False]), "bool[2]{true, false}"),
        (np.array([0.1], np.float16), "f16[1]{0.1}"),
        (np.zeros((0, 4), np.float32), "f32[0,4]{}"),
        (np.zeros((3, 3), np.int8), "i8[3,3]#"),
        (np.array([b"a", b"b"]), 'str[2]{"a", "b"}'),
    ],
)
def test_tensors_are_labelled(array: np.ndarray, label: str) -> None:
    tensor = ir.tensor(array) if array.dtype.kind != "S" else ir.StringTensor(array)
    node = ir.node("Constant", [], attributes={"value": ir.AttrTensor("value", tensor)})
    graph = ir.Graph([], node.outputs, nodes=[node], opset_imports={"": 20})
    assert f"%constant1 = Constant(; value={label}" in text(ir.Model(graph, ir_version=10))
