"""What is refused of a model file because it does not hold together, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ffc.graph import files
from tests.graph.files.model_files import refused

SOURCE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 32] x) => (float[n, 32] y) {
    h = MatMul(x, w)
    r = Relu(h)
    y = Add(r, h)
}
"""


def proto_of() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(SOURCE)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((32, 32), np.float32), "w"))
    return proto


def written(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def no_outputs(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:], proto.graph.node[:]


def no_opset(proto: onnx.ModelProto) -> None:
    proto.ClearField("opset_import")


def no_standard_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].domain = "com.microsoft"


def dangling_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[0] = "nowhere"


def dangling_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = "nowhere"


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "r"


def own_output(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[0] = "r"


def produced_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "h"


def unknown_domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].domain = "elsewhere"


def short_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = bytes(12)


def negative_dimension(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [-32, -32]


def huge_dimension(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].dims[:] = [2**31, 2**31]


def unknown_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def large_of_no_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = onnx.TensorProto.UNDEFINED


def location_that_is_no_text(proto: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.data")
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("listed", [tensor]))
    proto.ParseFromString(proto.SerializeToString().replace(b"w.data", b"\xff.data"))


def endless_function(proto: onnx.ModelProto) -> None:
    body = [onnx.helper.make_node("F", ["x"], ["y"], domain="f")]
    function = onnx.helper.make_function("f", "F", ["x"], ["y"], body, [onnx.helper.make_opsetid("f", 1)])
    call_function(proto, [function])


def exploding_functions(proto: onnx.ModelProto) -> None:
    opsets = [onnx.helper.make_opsetid("f", 1), onnx.helper.make_opsetid("", 20)]
    functions = []
    for level in range(30):
        inner = ("Abs", "") if level == 0 else (f"F{level - 1}", "f")
        nodes = [onnx.helper.make_node(inner[0], [a], [b], domain=inner[1]) for a, b in (("x", "t"), ("t", "y"))]
        functions.append(onnx.helper.make_function("f", f"F{level}", ["x"], ["y"], nodes, opsets))
    functions[-1].name = "F"
    call_function(proto, functions)


def call_without_an_input(proto: onnx.ModelProto) -> None:
    body = [onnx.helper.make_node("Add", ["x", "z"], ["y"])]
    function = onnx.helper.make_function("f", "F", ["x", "z"], ["y"], body, [onnx.helper.make_opsetid("", 20)])
    call_function(proto, [function])


def graph_as_default(proto: onnx.ModelProto) -> None:
    call_without_an_input(proto)
    proto.graph.node[1].input.append("h")
    graph = onnx.helper.make_graph([onnx.helper.make_node("F", [], ["y"], domain="f")], "endless", [], [])
    proto.functions[0].attribute_proto.append(onnx.helper.make_attribute("branch", graph))


def call_function(proto: onnx.ModelProto, functions: list[onnx.FunctionProto]) -> None:
    proto.opset_import.append(onnx.helper.make_opsetid("f", 1))
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "F", "f"
    proto.functions.extend(functions)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_outputs, "no outputs"),
        (no_opset, "imports no opset"),
        (no_standard_opset, "no opset import for domain '' of MatMul"),
        (dangling_input, "Relu reads 'nowhere'"),
        (dangling_output, "nothing produces the output 'nowhere'"),
        (cycle, "cycle"),
        (own_output, "cycle"),
        (produced_twice, "'h' is produced twice"),
        (unknown_domain, "'elsewhere'"),
        (short_data, "'w' holds too few"),
        (negative_dimension, "negative dimension"),
        (huge_dimension, "'w' holds too few"),
        (unknown_type, "no known data type"),
        (large_of_no_type, "no known data type"),
        (location_that_is_no_text, "is not text"),
        (endless_function, "call themselves"),
        (call_without_an_input, "f.F is called with 1 of its 2 inputs"),
        (graph_as_default, "the default of 'branch' is a graph"),
        (exploding_functions, "2147483649 nodes, calls of functions expanded"),
    ],
)
def test_refuses_unsound_models(tmp_path: Path, damage: Callable[[onnx.ModelProto], None], reason: str) -> None:
    proto = proto_of()
    damage(proto)
    assert reason in refused(written(tmp_path / "m.onnx", proto))


def test_sorts_nodes_that_are_out_of_order(tmp_path: Path) -> None:
    proto = proto_of()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = files.load(written(tmp_path / "m.onnx", proto))
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu", "Add"]


def test_a_subgraph_may_read_outer_values_only(tmp_path: Path) -> None:
    source = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (bool c, float[4] x) => (float[4] y) {
        r = Relu(x)
        y = If(c) <then_branch = a () => (float[4] t) { t = Abs(r) }, else_branch = b () => (float[4] e) { e = Neg(x) }>
    }"""
    proto = onnx.parser.parse_model(source)
    files.load(written(tmp_path / "m.onnx", proto))
    proto.graph.node[1].attribute[1].g.node[0].input[0] = "t"
    assert "reads 't'" in refused(written(tmp_path / "m.onnx", proto))
