"""Model files read and written with their large weights apart from the protobuf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from ffc.graph.files import wire

WEIGHT = np.arange(33 * 17, dtype=np.float32).reshape(33, 17)
HALF = np.arange(1024, dtype=np.float16)
SHAPE = np.array([2, -1], np.int64)


def model(*initializers: TensorProto) -> onnx.ModelProto:
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def tensor(array: np.ndarray, name: str) -> TensorProto:
    return numpy_helper.from_array(array, name)


def written(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def rejoined(content: bytes, arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    proto = onnx.ModelProto.FromString(content)
    for each in proto.graph.initializer:
        if each.name in arrays:
            each.CopyFrom(tensor(arrays[each.name], each.name))
    return proto


def parted(path: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a file without its large weights, and these as arrays."""
    content, tensors = wire.split(path)
    return content, {name: each.numpy() for name, each in tensors.items()}


def test_weights_stay_in_the_file_where_that_is_asked(tmp_path: Path) -> None:
    path = written(model(tensor(WEIGHT, "w")), tmp_path)
    content, tensors = wire.split(path, lazily=True)
    assert content == wire.split(path)[0]
    assert tensors["w"].shape.numpy() == WEIGHT.shape
    np.testing.assert_array_equal(tensors["w"].numpy(), WEIGHT)
    assert tensors["w"].numpy() is not tensors["w"].numpy()


def test_split_takes_the_large_weights_and_nothing_else(tmp_path: Path) -> None:
    whole = model(tensor(SHAPE, "shape"), tensor(WEIGHT, "w"), tensor(HALF, "half"))
    content, arrays = parted(written(whole, tmp_path))
    assert sorted(arrays) == ["half", "w"]
    np.testing.assert_array_equal(arrays["w"], WEIGHT)
    np.testing.assert_array_equal(arrays["half"], HALF)
    assert len(content) < 500
    assert rejoined(content, dict(arrays)) == whole


def test_arrays_are_aligned_and_do_not_depend_on_the_file(tmp_path: Path) -> None:
    for shift in range(4):
        whole = model(tensor(WEIGHT, "w" + "x" * shift))
        path = written(whole, tmp_path)
        (array,) = parted(path)[1].values()
        path.write_bytes(b"something else")
        assert array.flags.aligned
        np.testing.assert_array_equal(array, WEIGHT)


def test_every_field_of_the_model_survives(tmp_path: Path) -> None:
    whole = model(tensor(WEIGHT, "w"))
    whole.producer_name, whole.doc_string = "someone", "ünïcode"
    whole.metadata_props.add(key="a", value="b")
    whole.graph.initializer[0].doc_string = "a weight"
    whole.graph.node[0].attribute.append(helper.make_attribute("pi", 3.0))
    whole.graph.node[0].attribute.append(helper.make_attribute("t", tensor(WEIGHT, "inside")))
    content, arrays = parted(written(whole, tmp_path))
    assert onnx.ModelProto.FromString(content).graph.initializer[0].doc_string == "a weight"
    again = rejoined(content, dict(arrays))
    again.graph.initializer[0].doc_string = "a weight"
    assert again == whole


def wrong_length() -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[33, 18], raw_data=WEIGHT.tobytes())


def negative() -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-33, -17], raw_data=WEIGHT.tobytes())


def unknown_type() -> TensorProto:
    return TensorProto(name="w", data_type=99, dims=[33, 17], raw_data=WEIGHT.tobytes())


def external() -> TensorProto:
    proto = tensor(WEIGHT, "w")
    proto.data_location = TensorProto.EXTERNAL
    return proto


def numbers() -> TensorProto:
    return helper.make_tensor("w", TensorProto.FLOAT, WEIGHT.shape, WEIGHT.reshape(-1))


@pytest.mark.parametrize("made", [wrong_length, negative, unknown_type, external, numbers])
def test_what_is_odd_stays_for_the_checks_of_the_model(made: object, tmp_path: Path) -> None:
    assert callable(made)
    whole = model(made())
    content, arrays = wire.split(written(whole, tmp_path))
    assert not arrays
    assert onnx.ModelProto.FromString(content) == whole


def test_two_initializers_of_one_name_stay(tmp_path: Path) -> None:
    whole = model(tensor(WEIGHT, "w"), tensor(WEIGHT + 1, "w"))
    content, arrays = wire.split(written(whole, tmp_path))
    assert not arrays
    assert onnx.ModelProto.FromString(content) == whole


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04 a zip file", b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 40])
def test_bytes_that_are_no_message_come_back_as_they_are(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert wire.split(path) == (content, {})


def test_a_truncated_file_comes_back_as_it_is(tmp_path: Path) -> None:
    whole = written(model(tensor(WEIGHT, "w")), tmp_path).read_bytes()
    path = tmp_path / "cut.onnx"
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        content, arrays = wire.split(path)
        assert (content, arrays) == (whole[:end], {})


def test_chunks_give_a_model_that_reads_back_equal() -> None:
    small, large = ir.tensor(SHAPE, name="shape"), ir.tensor(WEIGHT, name="w")
    shell = model(tensor(SHAPE, "shape"), TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[0]))
    assert not wire.is_large(small)
    assert wire.is_large(large)
    content = b"".join(wire.chunks(shell, {"w": large}))
    assert onnx.ModelProto.FromString(content) == model(tensor(SHAPE, "shape"), tensor(WEIGHT, "w"))


def test_chunks_write_arrays_in_any_layout() -> None:
    for array in (WEIGHT.T, WEIGHT[:, ::2]):
        shell = model(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[0]))
        content = b"".join(wire.chunks(shell, {"w": ir.Tensor(array, ir.DataType.FLOAT, name="w")}))
        (found,) = onnx.ModelProto.FromString(content).graph.initializer
        np.testing.assert_array_equal(numpy_helper.to_array(found), array)
