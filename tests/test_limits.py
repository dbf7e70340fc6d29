"""Limits on what a model may ask for: how they are raised, and that each is met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ffc import limits
from ffc.compiler.proof import probes
from ffc.errors import InputError, UsageError
from ffc.graph import files


def proto_of(body: str = "h = MatMul(x, w) y = Abs(h)") -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[n, 32] x) => (float[n, 32] y) {{ {body} }}'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((32, 32), np.float32), "w"))
    return proto


def load(folder: Path, proto: onnx.ModelProto, *changes: str) -> None:
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with limits.applied(limits.parse(changes)):
        files.load(folder / "m.onnx")


@pytest.mark.parametrize(
    "change",
    ["file=4K", "nodes=1", "name=0", "value=0", "values=0", "macs=3071"],
)
def test_each_limit_is_met_and_can_be_raised(tmp_path: Path, change: str) -> None:
    # 33 rows more than the weights have make a value count.
    proto = proto_of(
        "h = MatMul(x, w) t = Concat<axis=0>(h, h, h, h, h, h, h, h, h, h, h, h) y = Abs(t) "
        + "".join(f"z{i} = Abs(t) " for i in range(20))
    )
    load(tmp_path, proto)
    with pytest.raises(InputError, match=change.partition("=")[0]) as caught:
        load(tmp_path, proto, change)
    assert "\n" not in str(caught.value)


def test_what_products_take_is_counted(tmp_path: Path) -> None:
    load(tmp_path, proto_of(), f"macs={3 * 32 * 32}")
    with pytest.raises(InputError, match=f"{3 * 32 * 32} multiply-accumulates"):
        load(tmp_path, proto_of(), f"macs={3 * 32 * 32 - 1}")


def test_no_probe_is_larger_than_what_is_counted(tmp_path: Path) -> None:
    inputs = "int64[batch, length] ids, int64[batch, length] attention_mask"
    source = f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => (int64[batch, length] y) {{ y = Abs(ids) }}'
    proto = onnx.parser.parse_model(source)
    load(tmp_path, proto)
    largest = max(probe.feeds["ids"].nbytes for probe in probes.make(files.load(tmp_path / "m.onnx")))
    with pytest.raises(InputError, match="over the limit 'value'"):
        load(tmp_path, proto, f"value={largest - 1}")


def test_external_data_count_together(tmp_path: Path) -> None:
    proto = proto_of()
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    files.save(files.load(tmp_path / "m.onnx"), tmp_path / "m.onnx", external=True)
    with limits.applied(limits.parse(["data=4K"])):
        files.load(tmp_path / "m.onnx")
    with (
        limits.applied(limits.parse(["data=4095"])),
        pytest.raises(InputError, match="more than 4095; raise the limit 'data'"),
    ):
        files.load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("node=3", "no limit is called 'node'; did you mean 'nodes'?"),
        ("nodes", "limit 'nodes' is '', expected a number such as 500000 or 4G"),
        ("nodes=-1", "expected a number"),
        ("nodes=1e9", "expected a number"),
    ],
)
def test_a_change_must_name_a_limit_and_a_number(change: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        limits.parse([change])
    assert reason in str(caught.value)


def test_limits_hold_inside_the_block_only() -> None:
    default = limits.active()
    with limits.applied(limits.parse(["nodes=7", "memory=3G"])):
        assert limits.active().nodes == 7 and limits.active().memory == 3 << 30
        assert limits.active().depth == default.depth
    assert limits.active() is default


def test_only_what_is_of_ffc_survives_of_the_metadata(tmp_path: Path) -> None:
    proto = proto_of()
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "x"
    for holder in (proto, proto.graph, proto.graph.node[0], proto.graph.initializer[0], proto.graph.input[0]):
        for key in ("ort_config", "ffc.task", "pkg.torch.name"):
            holder.metadata_props.add(key=key, value="{}")
    proto.metadata_props.add(key="ffc.nul", value="a\0b")
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = files.load(tmp_path / "m.onnx")
    assert model.metadata_props == {"ffc.task": "{}"} and not model.doc_string
    assert model.graph.metadata_props == {} and not model.graph.doc_string
    assert model.graph[0].metadata_props == {"ffc.task": "{}", "pkg.torch.name": "{}"} and not model.graph[0].doc_string
    assert model.graph.inputs[0].metadata_props == {} and model.graph.initializers["w"].metadata_props == {}


def test_no_metadata_survive_on_the_values_of_a_function(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20, "own": 1]> g (float[n] x) => (float[n] y) { y = own.F(x) }
    <domain: "own", opset_import: ["": 20]> F (a) => (c) <float[n] b> { b = Relu(a) c = Relu(b) }"""
    proto = onnx.parser.parse_model(text)
    proto.functions[0].value_info[0].metadata_props.add(key="ort_config", value="{}")
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    (function,) = files.load(tmp_path / "m.onnx").functions.values()
    assert function[0].outputs[0].metadata_props == {}
